//! Monotonic counters of a shard: what came, what went, what was dropped and why.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Figures since the shard was made. Only ever grow.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Names, in the order of [`Counters::values`].
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// Every figure with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                Self::NAMES.iter().copied().zip(self.values())
            }

            /// Every figure, in the order of [`Counters::NAMES`].
            pub fn values(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$name),*]
            }
        }
    };
}

counters! {
    /// Datagrams received, of any kind.
    rx_datagrams,
    /// Their bytes.
    rx_bytes,
    /// RTP packets that were authentic and new.
    rx_rtp_packets,
    /// Media packets recovered by RTX or resending.
    rx_recovered_packets,
    /// Packets of sound recovered from redundancy inside later ones (RED).
    rx_restored_packets,
    /// RTCP packets (compound counts as one) that were authentic.
    rx_rtcp_packets,
    /// RTP packets sent, retransmissions and padding included.
    tx_rtp_packets,
    /// Bytes sent, of any kind.
    tx_bytes,
    /// Runs handed to the outbox, each of one or more datagrams.
    tx_runs,
    /// Datagrams sent that are neither RTP nor relay media.
    tx_control_datagrams,
    /// Retransmissions sent to subscribers.
    tx_retransmissions,
    /// Retransmissions that went again, unasked, since the path loses much.
    tx_doubled_retransmissions,
    /// Retransmissions that went again since feedback told that they were lost.
    tx_unasked_retransmissions,
    /// Empty packets sent under numbers that were asked for and have no content any more.
    tx_closed_holes,
    /// Packets of sound sent a second time without being asked for, at heavy loss.
    tx_audio_copies,
    /// Packets of sound sent with earlier ones inside (RED).
    tx_red_packets,
    /// Repair packets (FlexFEC) sent to subscribers.
    tx_repair_packets,
    /// Padding packets sent to probe for bandwidth.
    tx_padding_packets,
    /// Relay datagrams received and authentic.
    rx_relay_datagrams,
    /// Relay datagrams sent.
    tx_relay_datagrams,
    /// Packets exchanged with other shards of the process (sent).
    tx_shard_packets,
    /// Frames given to sinks.
    sink_frames,
    /// Key-frame requests sent upstream.
    tx_keyframe_requests,
    /// Data messages taken of clients.
    rx_data_messages,
    /// Data messages queued for clients, each receiver counted.
    tx_data_messages,
    /// Data messages given to other workers.
    tx_shard_data,
    /// SCTP associations that ended before their transport.
    data_links_lost,
    /// Dropped: first byte of no protocol we speak, or too short.
    drop_unknown_datagram,
    /// Dropped: STUN for no transport of ours.
    drop_unknown_stun,
    /// Dropped: a client's first check, because too many of its address or of all are connecting just now.
    drop_half_open_limit,
    /// Dropped: from an address of no transport.
    drop_unknown_source,
    /// Dropped: media before the handshake ended, of a client that another node has now, or too much of one that it has still.
    drop_no_keys,
    /// Dropped: malformed RTP or RTCP.
    drop_malformed,
    /// Dropped: failed authentication.
    drop_unauthentic,
    /// Dropped: replayed or too old.
    drop_replayed,
    /// Dropped: RTP whose SSRC matches no m-line.
    drop_unknown_ssrc,
    /// Dropped: payload type not negotiated.
    drop_unknown_payload_type,
    /// Dropped: more SSRCs than the limit.
    drop_ssrc_limit,
    /// Dropped: media of an m-line that is not published, or of a muted track.
    drop_not_published,
    /// Dropped: padding without payload (probes of the publisher).
    drop_padding,
    /// Dropped: a packet that came twice, by retransmission.
    drop_duplicate,
    /// Dropped: more packets of a track between two flushes than the limit.
    drop_pending_limit,
    /// Dropped: media over the cap of its track or of all that its client sends.
    drop_ingress_cap,
    /// Dropped: media that does not fit into a usual datagram.
    drop_too_large,
    /// Dropped: over a subscriber's budget.
    drop_pacer,
    /// Dropped: retransmissions asked for that are too old, too frequent or over the budget.
    drop_retransmission,
    /// Dropped: relay datagrams of no association, not authentic or malformed.
    drop_relay,
    /// Dropped: messages from other shards about tracks that are gone.
    drop_shard_message,
    /// Dropped: source frames over the queue's bound.
    drop_source_frames,
    /// Dropped: frames, because nobody collected a sink's frames.
    drop_sink_frames,
    /// Dropped: STUN, DTLS and RTCP of a transport, and control messages of a relay, over their queue's bound.
    drop_control_queue,
    /// Dropped: packets for a subscriber that has no path or keys yet.
    drop_not_connected,
    /// Dropped: packets that waited for budget when their slot's track changed.
    drop_slot_change,
    /// Dropped: packets that waited until their track's ring had no place for them any more.
    drop_evicted,
    /// Dropped: data messages over a sender's rate, on channels that may lose.
    drop_data_rate,
    /// Dropped: data messages that a receiver took too slowly.
    drop_data_slow,
    /// Dropped: data messages longer than the limit, or than their receiver takes.
    drop_data_too_large,
    /// Dropped: data messages of senders without the grant.
    drop_data_forbidden,
    /// Dropped: data messages and channels that break the protocol (no open, bad topic, bad head).
    drop_data_malformed,
    /// Dropped: channels, or messages that would need one, over the limit of channels.
    drop_data_channels,
    /// Dropped: data messages for another node that its relay did not take, or that came of it and make no sense.
    drop_data_relay,
}
