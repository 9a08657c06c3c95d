//! Transports that go to other nodes and come from them while their clients notice nothing.

use super::Shard;
use crate::addr::{Dest, Proto};
use crate::command::Caps;
use crate::error::Error;
use crate::event::Reply;
use crate::handover::{HandoverKey, TransportState};
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
        is_final: bool,
        key: &HandoverKey,
    ) -> Result<Reply, Error> {
        let transport = self.find_transport(id)?;
        let state = self.transports[transport.index()].hand_over(self.now, &self.clock, is_final)?;
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
        let transport = &mut self.transports[at.index()];
        if !state.is_final || !transport.is_awaiting(&state) {
            return Err(Error::BadRequest(format!("transport {id} does not wait for this state")));
        }
        transport.take_over_sending(self.now, &self.clock, &state)?;
        self.request_carried_keyframes(at);
        self.arm_transport(at);
        Ok(Reply::Done)
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
        };
        let handshake = Handshake::elsewhere(&negotiated.remote, elsewhere, self.now);
        let ufrag = handshake.local_ufrag().to_owned();
        let init = TransportInit { id: id.clone(), room: import.room, handshake, negotiated, caps: import.caps, ssrcs };
        let mut transport = Transport::new(self.now, &self.clock, init);
        let max_ssrcs = self.config.limits.max_ssrcs;
        transport.apply_negotiated(self.now, max_ssrcs, || self.random.next());
        transport.moves = state.moves;
        transport.take_over_receiving(&state, max_ssrcs)?;
        if state.is_final {
            transport.take_over_sending(self.now, &self.clock, &state)?;
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
        let is_fit = |addr: &std::net::SocketAddr| addr.is_ipv4() == remote.is_ipv4();
        let mut ours = self.config.candidates.iter().filter(|c| c.proto == Proto::Udp).map(|c| c.addr);
        Some(Dest { proto: Proto::Udp, local: ours.find(is_fit)?, remote })
    }
}
