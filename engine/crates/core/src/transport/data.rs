//! The data half of a transport: who its client is, and the datagrams of its association.

use std::time::Instant;

use super::{Transport, send_datagram};
use crate::counters::Counters;
use crate::data::port::{Access, DataPort};
use crate::outbox::Outbox;

/// Data channels of one transport. The two come in any order.
#[derive(Debug, Default)]
pub(crate) struct TransportData {
    /// Who the client is, once the application said so.
    pub(crate) access: Option<Access>,
    /// Once an offer had the line.
    pub(crate) port: Option<DataPort>,
}

impl Transport {
    /// The client's port, if data channels are negotiated.
    pub(crate) fn data_port(&mut self) -> Option<&mut DataPort> {
        self.data.as_mut()?.port.as_mut()
    }

    /// Makes the port that an offer asks for, and tells it who the client is.
    pub(crate) fn settle_data(&mut self, now: Instant) {
        let is_dtls_client = self.handshake.is_dtls_client();
        if let Some(line) = self.negotiated.data_line() {
            let max = line.max_message_size;
            let data = self.data.get_or_insert_default();
            data.port.get_or_insert_with(|| DataPort::new(now, is_dtls_client, max));
        }
        if let Some(TransportData { access, port: Some(port) }) = self.data.as_deref_mut() {
            port.access.clone_from(access);
        }
    }

    /// Sends what the association has, within data's share of the bandwidth.
    pub(crate) fn flush_data(&mut self, now: Instant, counters: &mut Counters, out: &mut impl Outbox) {
        if self.data.is_none() {
            return;
        }
        let (Some(path), true) = (self.handshake.path(), self.handshake.is_connected()) else { return };
        let has_carried = self.has_carried();
        let Some(port) = self.data.as_mut().and_then(|d| d.port.as_mut()) else { return };
        let media = has_carried.then(|| self.tx.bandwidth.left_over());
        let mut is_first = true;
        while let Some(datagram) = port.poll_transmit(now, media, is_first) {
            is_first = false;
            let bytes = &mut self.tx.bytes;
            self.handshake.seal_data(&datagram, |sealed| {
                *bytes += sealed.len() as u64;
                send_datagram(path, sealed, counters, out);
            });
        }
        let used_bps = port.used_bps(now);
        self.tx.bandwidth.set_data_bps(used_bps);
    }
}
