//! A relayed track that comes from another node from now on: every node gives it the same numbers, so its receivers go on.

use super::Shard;
use crate::error::Error;
use crate::event::Reply;
use crate::id::{RelayId, TrackId};
use crate::keys::{RelaySlot, TrackKey};
use crate::relay::RelayControl;
use crate::track::Origin;

impl Shard {
    /// Gaps are asked for at the new node from now on, and what both bring is taken once.
    pub(super) fn move_import(&mut self, relay: &RelayId, id: &TrackId, handle: u32) -> Result<Reply, Error> {
        let to = self.find_relay(relay)?;
        let key = self.find_track(id)?;
        let track = &mut self.tracks[key.index()];
        let (info, told_mask) = (track.info(), track.told_mask);
        let Origin::Relay { relay: from, handle: former } = track.origin else {
            return Err(Error::BadRequest(format!("track {id} does not come over a relay of this worker")));
        };
        if (from, former) == (to, handle) {
            return Ok(Reply::Track(info));
        }
        if self.relays[to.index()].imports.contains_key(&handle) {
            return Err(Error::AlreadyExists(format!("handle {handle} on relay {relay}")));
        }
        let Some(import) = self.relays[from.index()].imports.remove(&former) else {
            return Err(Error::TrackNotFound(id.to_string()));
        };
        track.origin = Origin::Relay { relay: to, handle };
        self.relays[from.index()].formers.insert(former, key);
        let link = &mut self.relays[to.index()];
        link.formers.remove(&handle);
        link.imports.insert(handle, import);
        // It began with all layers, as it does for everybody.
        self.push_control(to, RelayControl::LayersWanted { handle, mask: told_mask });
        self.arm_relay(to);
        Ok(Reply::Track(info))
    }

    /// Where what comes on a handle belongs to: for a track that moved, to its new place.
    pub(super) fn import_of(&self, relay: RelaySlot, handle: u32) -> (RelaySlot, u32) {
        let formers = &self.relays[relay.index()].formers;
        // Empty but for the second after a move.
        if formers.is_empty() {
            return (relay, handle);
        }
        let moved = formers.get(&handle).and_then(|track| self.tracks.get(track.index()));
        match moved.map(|track| track.origin) {
            Some(Origin::Relay { relay, handle }) => (relay, handle),
            _ => (relay, handle),
        }
    }

    /// A track that moved is not taken from its former place any more.
    pub(super) fn drop_former(&mut self, relay: RelaySlot, track: TrackKey) {
        self.relays[relay.index()].formers.retain(|_, former| *former != track);
    }

    /// A track has ended.
    pub(super) fn forget_formers(&mut self, track: TrackKey) {
        for (_, link) in &mut self.relays {
            link.formers.retain(|_, former| *former != track);
        }
    }
}
