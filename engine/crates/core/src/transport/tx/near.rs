//! Asks for the memory of what is worked on next, see [`crate::prefetch`].

use super::TransportTx;
use crate::prefetch::Prefetch;

/// Records of sent packets that a feedback is about, as far as they are fetched before: of 100 ms.
const FEEDBACK_RECORDS: u16 = 24;
/// Bytes of a key with its tables, as far as a short packet needs them.
const KEY_LEN: usize = 576;

impl TransportTx {
    /// A flush comes soon: what it reads of this struct.
    pub(crate) fn prefetch(&self, cache: &impl Prefetch) {
        cache.prefetch(&self.slots);
        cache.prefetch(&self.srtp);
        cache.prefetch(&self.control);
        cache.prefetch(&self.rtcp);
        cache.prefetch(&self.resends);
        cache.prefetch(&self.copies);
        cache.prefetch(&self.queue);
        cache.prefetch(&self.packets);
        self.bandwidth.prefetch_sent(cache);
    }

    /// The same, sooner: what this struct points to. `packets` will be sent.
    pub(crate) fn prefetch_behind(&self, slot: u16, packets: u16, cache: &impl Prefetch) {
        if let Some(slot) = self.slots.get(usize::from(slot)) {
            cache.prefetch(slot);
        }
        if let Some(srtp) = &self.srtp {
            cache.prefetch_behind(srtp.rtp_key(), KEY_LEN);
        }
        self.bandwidth.prefetch_records(self.transport_cc, packets, cache);
    }

    /// The same, just before.
    pub(crate) fn prefetch_slot(&self, slot: u16, packets: u16, cache: &impl Prefetch) {
        if let Some(slot) = self.slots.get(usize::from(slot)) {
            slot.prefetch_behind(packets, cache);
        }
    }

    /// Feedback is read soon: the records of what was sent lately.
    pub(crate) fn prefetch_reported(&self, cache: &impl Prefetch) {
        let oldest = self.transport_cc.wrapping_sub(FEEDBACK_RECORDS);
        self.bandwidth.prefetch_records(oldest, FEEDBACK_RECORDS, cache);
    }
}
