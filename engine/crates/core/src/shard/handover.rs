//! Transports that go to other nodes and come from them while their clients notice nothing.

use std::net::SocketAddr;

use mrtc_rtp::demux::{DatagramKind, classify};

use super::Shard;
use crate::addr::{Dest, Proto};
use crate::command::Caps;
use crate::error::Error;
use crate::event::Reply;
use crate::handover::{HandoverKey, Purpose, TransportState};
use crate::handshake::{Elsewhere, Fingerprint, Handshake};
use crate::id::{RoomId, TransportId};
use crate::keys::TransportKey;
use crate::ssrcs::Ssrcs;
use crate::transport::{Transport, TransportInit};

/// What comes from another node.
pub(super) struct Import<'a> {
    pub(super) room: RoomId,
    pub(super) offer: &'a str,
    pub(super) caps: Caps,
    pub(super) sealed: &'a [u8],
    pub(super) key: &'a HandoverKey,
}

impl Shard {
    pub(super) fn export_transport(
        &mut self,
        id: &TransportId,
        purpose: Purpose,
        key: &HandoverKey,
    ) -> Result<Reply, Error> {
        let transport = self.find_transport(id)?;
        let state = self.transports[transport.index()].hand_over(self.now, &self.clock, purpose)?;
        Ok(Reply::TransportState(state.seal(key)))
    }

    pub(super) fn complete_transport(
        &mut self,
        id: &TransportId,
        sealed: &[u8],
        key: &HandoverKey,
    ) -> Result<Reply, Error> {
        let at = self.find_transport(id)?;
        let state = TransportState::open(sealed, key)?;
        let max_ssrcs = self.config.limits.max_ssrcs;
        let transport = &mut self.transports[at.index()];
        if !state.is_final || !transport.is_awaiting(&state) {
            return Err(Error::BadRequest(format!("transport {id} does not wait for this state")));
        }
        transport.take_over_receiving(&state, max_ssrcs)?;
        transport.take_over_sending(self.now, &self.clock, &state)?;
        transport.handshake.await_no_longer();
        self.take_held(at);
        self.repeat_keyframe_requests(at);
        self.request_carried_keyframes(at);
        self.after_handshake(at);
        Ok(Reply::Done)
    }

    /// Opens what the client sent before the other node had let go.
    fn take_held(&mut self, key: TransportKey) {
        let transport = &mut self.transports[key.index()];
        let held = transport.rx.take_held();
        let Some(Dest { proto, local, remote }) = transport.handshake.path() else { return };
        for mut datagram in held {
            match classify(&datagram) {
                DatagramKind::Rtp => self.handle_rtp(proto, remote, local, &mut datagram),
                _ => self.handle_rtcp(proto, remote, local, &mut datagram),
            }
        }
    }

    pub(super) fn import_transport(&mut self, id: TransportId, import: Import<'_>) -> Result<Reply, Error> {
        self.check_new_transport(&id)?;
        let state = TransportState::open(import.sealed, import.key)?;
        let mut ssrcs = Ssrcs::new(state.last_ssrc.into());
        let mut negotiated = self.negotiate_offer(import.offer, None, &mut ssrcs)?;
        state.settle(&mut negotiated)?;
        let local = state.kept_credentials(&negotiated.remote);
        if local.as_ref().is_some_and(|local| self.by_ufrag.contains_key(&local.ufrag)) {
            return Err(Error::AlreadyExists("a transport with the same ICE credentials".into()));
        }
        let fingerprint: Fingerprint = state
            .fingerprint
            .parse()
            .map_err(|_| Error::BadRequest("the state of the transport has no fingerprint".into()))?;
        let elsewhere = Elsewhere {
            fingerprint,
            is_dtls_client: state.is_dtls_client,
            call: local.is_some().then(|| self.path_to_last(&state)).flatten(),
            local,
            moves: state.moves,
            is_awaited: !state.is_final,
        };
        let handshake = Handshake::elsewhere(&negotiated.remote, elsewhere, self.now);
        let ufrag = handshake.local_ufrag().to_owned();
        let init = TransportInit { id: id.clone(), room: import.room, handshake, negotiated, caps: import.caps, ssrcs };
        let mut transport = Transport::new(self.now, &self.clock, init);
        let max_ssrcs = self.config.limits.max_ssrcs;
        transport.apply_negotiated(self.now, max_ssrcs, || self.random.next());
        transport.moves = state.moves;
        if state.is_final {
            transport.take_over_receiving(&state, max_ssrcs)?;
            transport.take_over_sending(self.now, &self.clock, &state)?;
        } else {
            transport.await_keys();
        }
        transport.tx.tap = self.tap_of(&transport);
        let key = TransportKey::from(self.transports.insert(Box::new(transport)));
        self.transport_ids.insert(id, key);
        self.by_ufrag.insert(ufrag, key);
        Ok(self.answer(key))
    }

    /// From an address of ours to where the client was last.
    fn path_to_last(&self, state: &TransportState) -> Option<Dest> {
        let remote = state.remote?;
        let candidates = self.config.candidates.iter().filter(|c| c.proto == Proto::Udp).map(|c| c.addr);
        let mut ours = candidates.filter(|addr| addr.is_ipv4() == remote.is_ipv4());
        let is_near = |addr: &SocketAddr| addr.ip().is_loopback() == remote.ip().is_loopback();
        let local = ours.clone().find(is_near).or_else(|| ours.next())?;
        Some(Dest { proto: Proto::Udp, local, remote })
    }
}
