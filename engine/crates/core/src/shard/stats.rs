//! Fills in the figures of transports and rooms.

use super::Shard;
use crate::addr::Proto;
use crate::allocator::Target;
use crate::id::{RoomId, TransportId};
use crate::keys::TrackKey;
use crate::relay::RelayLink;
use crate::slot::Slot;
use crate::stats::{LayerDump, RelayDump, RoomDump, SlotStats, Stats, StreamStats, TrackDump, TransportStats};
use crate::track::{Origin, Track};
use crate::transport::Transport;
use crate::transport::streams::StreamRx;

impl Shard {
    /// Figures of these transports; of all, if none is named. Costs what is named, however many others there are.
    pub(super) fn stats(&self, wanted: &[TransportId]) -> String {
        let named = wanted.iter().filter_map(|id| self.transport_ids.get(id));
        let transports: Vec<_> = if wanted.is_empty() {
            self.transports.iter().map(|(_, t)| self.transport_stats(t)).collect()
        } else {
            named.map(|key| self.transport_stats(&self.transports[key.index()])).collect()
        };
        json(&Stats { transports })
    }

    /// The forwarding state of a room.
    pub(super) fn dump_room(&self, room: &RoomId) -> String {
        let transports = self.transports.iter().map(|(_, t)| t).filter(|t| t.room == *room);
        let tracks: Vec<&Track> = self.tracks.iter().map(|(_, t)| t).filter(|t| t.room == *room).collect();
        let is_used = |(index, _): &(usize, &RelayLink)| {
            let slot = crate::keys::RelaySlot::from(*index);
            tracks.iter().any(|t| {
                t.exports.iter().any(|e| e.relay == slot)
                    || matches!(t.origin, Origin::Relay { relay, .. } if relay == slot)
            })
        };
        json(&RoomDump {
            room: room.to_string(),
            transports: transports.map(|t| self.transport_stats(t)).collect(),
            relays: self.relays.iter().filter(is_used).map(|(_, relay)| relay_dump(relay)).collect(),
            tracks: tracks.into_iter().map(|t| self.track_dump(t)).collect(),
        })
    }

    fn track_name(&self, key: TrackKey) -> Option<String> {
        self.tracks.get(key.index()).map(|t| t.id.to_string())
    }

    fn transport_stats(&self, transport: &Transport) -> TransportStats {
        let path = transport.handshake.path();
        let bandwidth = &transport.tx.bandwidth;
        let rates = transport.rates.per_second();
        TransportStats {
            id: transport.id.to_string(),
            room: transport.room.to_string(),
            is_connected: transport.handshake.is_connected(),
            remote: path.map(|p| p.remote.to_string()),
            protocol: path.map(|p| if p.proto == Proto::Udp { "udp" } else { "tcp" }),
            age_ms: self.now.saturating_duration_since(transport.created_at).as_millis() as u64,
            rtt_ms: transport.known_rtt().map(|rtt| rtt.as_secs_f64() * 1e3),
            estimate_bps: bandwidth.estimate_bps(),
            allocated_bps: bandwidth.allocation().allocated_bps,
            desired_bps: bandwidth.allocation().desired_bps,
            rx_packets: transport.rx.packets,
            rx_bytes: transport.rx.bytes,
            tx_packets: transport.tx.packets,
            tx_bytes: transport.tx.bytes,
            rx_pps: rates.rx_packets,
            rx_bps: rates.rx_bytes * 8,
            tx_pps: rates.tx_packets,
            tx_bps: rates.tx_bytes * 8,
            queued_bytes: transport.tx.queued_bytes() as u64,
            streams: transport.rx.streams.list.iter().map(|s| self.stream_stats(transport, s)).collect(),
            slots: transport.tx.slots.iter().map(|s| self.slot_stats(s)).collect(),
        }
    }

    fn stream_stats(&self, transport: &Transport, stream: &StreamRx) -> StreamStats {
        let line = &transport.negotiated.lines[stream.line];
        StreamStats {
            mid: line.mid.to_string(),
            layer: stream.layer,
            rid: line.rids.get(usize::from(stream.layer)).map(ToString::to_string),
            ssrc: stream.ssrc.0,
            track: stream.track.and_then(|key| self.track_name(key)),
            packets: stream.register.received(),
            bytes: stream.bytes,
            recovered: stream.register.recovered(),
            lost: stream.register.given_up(),
            jitter_ms: stream.register.jitter().as_secs_f64() * 1e3,
            nacks: stream.nacks,
            rtx_packets: stream.rtx_packets,
            keyframe_requests: stream.keyframe_requests,
        }
    }

    fn slot_stats(&self, slot: &Slot) -> SlotStats {
        let carried = slot.carried.as_ref();
        let clock_rate = carried.map_or(90_000.0, |c| f64::from(c.format.clock_rate));
        SlotStats {
            mid: slot.mid.to_string(),
            ssrc: slot.source.ssrc.0,
            track: carried.map(|c| c.wanted.track.to_string()),
            sent_track: carried.and_then(|c| self.track_name(c.track)),
            target: carried.and_then(|c| match c.target {
                Target::Paused => None,
                Target::Layer { spatial, temporal } => Some([spatial, temporal]),
            }),
            current: slot.forwarder.current(),
            packets: slot.figures.packets,
            bytes: slot.figures.octets,
            is_waiting: slot.forwarder.wants_keyframe().is_some(),
            nacks: slot.figures.nacks,
            retransmissions: slot.figures.retransmissions,
            keyframe_requests: slot.figures.keyframe_requests,
            loss: f64::from(slot.figures.fraction_lost) / 256.0,
            jitter_ms: f64::from(slot.figures.jitter) * 1e3 / clock_rate,
        }
    }

    fn track_dump(&self, track: &Track) -> TrackDump {
        let relay_id = |relay: crate::keys::RelaySlot| self.relays.get(relay.index()).map(|link| link.id.to_string());
        let (count, layers) = track.layer_infos(self.now);
        let layers = layers[..usize::from(count)].iter().map(|layer| LayerDump {
            is_live: layer.is_live,
            bps: layer.bps.into_iter().max().unwrap_or(0),
            fps: layer.fps,
            height: layer.height,
        });
        TrackDump {
            id: track.id.to_string(),
            shard: self.config.index.0,
            origin: match track.origin {
                Origin::Transport { .. } => "transport",
                Origin::Relay { .. } => "relay",
                Origin::Source => "source",
                Origin::Shard { .. } => "shard",
            },
            codec: format!("{:?}", track.codec).to_lowercase(),
            is_muted: track.is_muted,
            wanted_mask: track.told_mask,
            layers: layers.collect(),
            subscribers: track.subscribers.len(),
            listeners: track.listeners.len(),
            sinks: track.sinks.len(),
            exports: track.exports.len(),
            export_relays: track.exports.iter().filter_map(|export| relay_id(export.relay)).collect(),
            import_relay: match track.origin {
                Origin::Relay { relay, .. } => relay_id(relay),
                _ => None,
            },
            mirrors: track.mirrors.len(),
        }
    }
}

fn relay_dump(relay: &RelayLink) -> RelayDump {
    RelayDump {
        id: relay.id.to_string(),
        remote: relay.remote.to_string(),
        is_up: relay.is_up,
        rtt_ms: relay.rtt().as_secs_f64() * 1e3,
        imports: relay.imports.len(),
        exports: relay.exports.len(),
        rx_packets: relay.rx_packets,
        tx_packets: relay.tx_packets,
    }
}

/// These shapes always serialise: plain structs with string keys.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}
