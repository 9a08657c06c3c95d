//! The shapes of `Stats` and `DumpRoom`, as JSON. Lists, so that the shards of a process can be joined.

use serde::Serialize;

/// What `Stats` gives.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Stats {
    /// The transports that were asked for.
    pub(crate) transports: Vec<TransportStats>,
}

/// What `DumpRoom` gives.
#[derive(Debug, Serialize)]
pub(crate) struct RoomDump {
    /// The room.
    pub(crate) room: String,
    /// Its transports on this engine.
    pub(crate) transports: Vec<TransportStats>,
    /// Its tracks on this engine; one that crosses shards is there once per shard.
    pub(crate) tracks: Vec<TrackDump>,
    /// Relays that carry some of its tracks.
    pub(crate) relays: Vec<RelayDump>,
}

/// A transport's figures. Counts are since it was opened.
#[derive(Debug, Serialize)]
pub(crate) struct TransportStats {
    /// Which.
    pub(crate) id: String,
    /// Its room.
    pub(crate) room: String,
    /// ICE and DTLS are up.
    pub(crate) is_connected: bool,
    /// Where its datagrams go; the client's address as this node sees it.
    pub(crate) remote: Option<String>,
    /// What carries them: `udp` or `tcp`.
    pub(crate) protocol: Option<&'static str>,
    /// Age in milliseconds.
    pub(crate) age_ms: u64,
    /// Smoothed round trip in milliseconds; absent while unknown.
    pub(crate) rtt_ms: Option<f64>,
    /// What the path to the client takes, bit/s.
    pub(crate) estimate_bps: u64,
    /// What its subscriptions are given of it, bit/s.
    pub(crate) allocated_bps: u64,
    /// What they would take without a limit, bit/s.
    pub(crate) desired_bps: u64,
    /// RTP packets received.
    pub(crate) rx_packets: u64,
    /// Their bytes.
    pub(crate) rx_bytes: u64,
    /// RTP packets sent.
    pub(crate) tx_packets: u64,
    /// Bytes sent, RTCP included.
    pub(crate) tx_bytes: u64,
    /// RTP packets received per second.
    pub(crate) rx_pps: u64,
    /// Bits received per second.
    pub(crate) rx_bps: u64,
    /// RTP packets sent per second.
    pub(crate) tx_pps: u64,
    /// Bits sent per second.
    pub(crate) tx_bps: u64,
    /// Bytes of pictures that wait for budget.
    pub(crate) queued_bytes: u64,
    /// What the client sends.
    pub(crate) streams: Vec<StreamStats>,
    /// What it receives.
    pub(crate) slots: Vec<SlotStats>,
}

/// One encoding that a client sends.
#[derive(Debug, Serialize)]
pub(crate) struct StreamStats {
    /// M-line.
    pub(crate) mid: String,
    /// Index of the simulcast layer, lowest first.
    pub(crate) layer: u8,
    /// Its rid, with simulcast.
    pub(crate) rid: Option<String>,
    /// SSRC.
    pub(crate) ssrc: u32,
    /// The track that it is published as.
    pub(crate) track: Option<String>,
    /// Packets received, recovered ones included.
    pub(crate) packets: u64,
    /// Bytes received.
    pub(crate) bytes: u64,
    /// Packets that came late or by retransmission.
    pub(crate) recovered: u64,
    /// Packets given up.
    pub(crate) lost: u64,
    /// Interarrival jitter in milliseconds.
    pub(crate) jitter_ms: f64,
    /// Packets asked for again.
    pub(crate) nacks: u64,
    /// Retransmissions received on a stream of their own.
    pub(crate) rtx_packets: u64,
    /// Key frames asked for, by PLI or FIR.
    pub(crate) keyframe_requests: u64,
}

/// One slot of a client.
#[derive(Debug, Serialize)]
pub(crate) struct SlotStats {
    /// M-line.
    pub(crate) mid: String,
    /// SSRC of what it receives.
    pub(crate) ssrc: u32,
    /// The track as it was asked for.
    pub(crate) track: Option<String>,
    /// The track or alternative that is sent.
    pub(crate) sent_track: Option<String>,
    /// Layer that is let through: `[spatial, temporal]`; absent while paused.
    pub(crate) target: Option<[u8; 2]>,
    /// Layer that is sent now.
    pub(crate) current: Option<u8>,
    /// Packets sent, without retransmissions.
    pub(crate) packets: u32,
    /// Bytes of their payloads.
    pub(crate) bytes: u32,
    /// Nothing is sent before a key frame comes.
    pub(crate) is_waiting: bool,
    /// Packets that the client asked for again.
    pub(crate) nacks: u64,
    /// Packets that were sent again.
    pub(crate) retransmissions: u64,
    /// Key frames that the client asked for.
    pub(crate) keyframe_requests: u64,
    /// Share lost on the way, by the client's last report, 0 to 1.
    pub(crate) loss: f64,
    /// Interarrival jitter in milliseconds, by the same report.
    pub(crate) jitter_ms: f64,
}

/// A track of a room.
#[derive(Debug, Serialize)]
pub(crate) struct TrackDump {
    /// Which.
    pub(crate) id: String,
    /// Shard.
    pub(crate) shard: u16,
    /// `transport`, `relay`, `source` or `shard`.
    pub(crate) origin: &'static str,
    /// Codec as it is sent.
    pub(crate) codec: String,
    /// Nothing of it is forwarded.
    pub(crate) is_muted: bool,
    /// Layers with receivers, a bit each, as told to the origin.
    pub(crate) wanted_mask: u8,
    /// Layers, lowest first.
    pub(crate) layers: Vec<LayerDump>,
    /// Receivers by kind.
    pub(crate) subscribers: usize,
    pub(crate) listeners: usize,
    /// Local sinks.
    pub(crate) sinks: usize,
    /// Relays that it flows out by.
    pub(crate) exports: usize,
    pub(crate) export_relays: Vec<String>,
    /// The relay that it comes over.
    pub(crate) import_relay: Option<String>,
    /// Shards that mirror it.
    pub(crate) mirrors: usize,
}

/// A layer of a track.
#[derive(Debug, Serialize)]
pub(crate) struct LayerDump {
    /// Packets come.
    pub(crate) is_live: bool,
    /// Its bit/s, all temporal layers.
    pub(crate) bps: u64,
    /// Frames per second.
    pub(crate) fps: u8,
    /// Picture height, zero if unknown.
    pub(crate) height: u16,
}

/// A relay.
#[derive(Debug, Serialize)]
pub(crate) struct RelayDump {
    /// Which.
    pub(crate) id: String,
    /// The other node's address.
    pub(crate) remote: String,
    /// It answers.
    pub(crate) is_up: bool,
    /// Round trip in milliseconds.
    pub(crate) rtt_ms: f64,
    /// Tracks that come in over it.
    pub(crate) imports: usize,
    /// Tracks that flow out by it.
    pub(crate) exports: usize,
    /// Datagrams received.
    pub(crate) rx_packets: u64,
    /// Datagrams sent.
    pub(crate) tx_packets: u64,
}
