//! A packet on its way out.

use mrtc_rtp::id::ExtSeq;

use super::super::seal::OSN_LEN;
use crate::keys::TrackKey;
use crate::rtp_rewriter::Rewritten;
use crate::send_history::SendRecord;

/// What an outgoing packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// For the first time.
    Media,
    /// The receiver asked for it again.
    Resend,
    /// Sound at heavy loss: again before it is asked for.
    Copy,
    /// Nobody asked: it probes for bandwidth.
    Probe,
}

/// A packet that was numbered and waits to be sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(super) class: Class,
    pub(super) slot: u16,
    pub(super) layer: u8,
    /// As in [`SendRecord`].
    pub(super) earlier: u8,
    /// As sealed, without padding.
    pub(super) size: u16,
    /// As in [`SendRecord`]; only of a packet that is sent again as it was.
    pub(super) stamp: u32,
    pub(super) track: TrackKey,
    pub(super) source_seq: ExtSeq,
    pub(super) rewritten: Rewritten,
}

impl Outgoing {
    pub(super) fn again(class: Class, slot: u16, track: TrackKey, has_rtx: bool, record: &SendRecord) -> Self {
        Self {
            class,
            slot,
            layer: record.layer,
            earlier: record.earlier,
            size: record.size + if has_rtx { OSN_LEN as u16 } else { 0 },
            stamp: record.stamp,
            track,
            source_seq: record.source_seq,
            rewritten: record.rewritten,
        }
    }
}
