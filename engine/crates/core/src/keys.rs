//! Places in a shard's slabs. They never leave the shard, and whoever removes a thing removes every key to it.

macro_rules! slab_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) struct $name(u32);

        impl $name {
            pub(crate) fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl From<usize> for $name {
            fn from(index: usize) -> Self {
                Self(u32::try_from(index).expect("limits keep slabs far below 2^32 entries"))
            }
        }
    };
}

slab_key!(
    /// Of a transport.
    TransportKey
);
slab_key!(
    /// Of a track.
    TrackKey
);
slab_key!(
    /// Of a relay.
    RelaySlot
);
slab_key!(
    /// Of a sink.
    SinkKey
);
