//! Which shard of the process is the origin of which track. Touched by commands only, never by packets.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::event::TrackInfo;
use crate::id::{RoomId, ShardIndex, TrackId};

/// What others may know of a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackEntry {
    /// Its origin.
    pub shard: ShardIndex,
    /// Its room.
    pub room: RoomId,
    /// What it carries.
    pub info: TrackInfo,
}

/// The tracks of all shards of a process.
#[derive(Debug, Default)]
pub struct TrackDirectory {
    tracks: RwLock<HashMap<TrackId, TrackEntry>>,
}

impl TrackDirectory {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a track. False, and nothing changes, if the id is in use.
    pub fn insert(&self, entry: TrackEntry) -> bool {
        let mut tracks = self.tracks.write().unwrap_or_else(PoisonError::into_inner);
        match tracks.entry(entry.info.track.clone()) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(entry);
                true
            }
        }
    }

    /// What is known of a track.
    pub fn get(&self, track: &TrackId) -> Option<TrackEntry> {
        let tracks = self.tracks.read().unwrap_or_else(PoisonError::into_inner);
        tracks.get(track).cloned()
    }

    /// Changes what is known of a track, if it is known.
    pub fn update(&self, track: &TrackId, change: impl FnOnce(&mut TrackInfo)) {
        let mut tracks = self.tracks.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = tracks.get_mut(track) {
            change(&mut entry.info);
        }
    }

    /// Forgets a track.
    pub fn remove(&self, track: &TrackId) {
        let mut tracks = self.tracks.write().unwrap_or_else(PoisonError::into_inner);
        tracks.remove(track);
    }
}
