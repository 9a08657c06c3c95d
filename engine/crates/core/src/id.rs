//! Ids of the things that commands and events name. Opaque strings, chosen by the caller.

use std::sync::Arc;

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(s: &str) -> Self {
                Self(s.into())
            }
        }

        impl From<String> for $name {
            fn from(s: String) -> Self {
                Self(s.into())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

string_id!(
    /// A WebRTC leg of a participant.
    TransportId
);
string_id!(
    /// An audio or video source of a room.
    TrackId
);
string_id!(
    /// A room (app and room name, joined by the caller).
    RoomId
);
string_id!(
    /// An association with another node.
    RelayId
);
string_id!(
    /// A local consumer of a track's frames.
    SinkId
);

/// A worker's shard, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardIndex(pub u16);

/// Matches a command with its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId(pub u64);
