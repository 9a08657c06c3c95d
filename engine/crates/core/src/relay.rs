//! An association with another node: its keys, the tracks that flow out and in over it, and whether it answers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use mrtc_rtp::codec::dependency_descriptor::Reader;
use mrtc_rtp::id::{ExtSeq, SeqNo};
use mrtc_rtp::relay::{Message, Opener, Sealer, SeqList};

use crate::clock::RemoteClock;
use crate::command::{Codec, RelayKey};
use crate::data::relay_port::RelayPort;
use crate::id::RelayId;
use crate::keys::TrackKey;
use crate::nack_register::NackRegister;
use crate::timers::Alarm;

/// The other node is asked this often whether it is there.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Without anything from it for this long it counts as lost: three pings.
pub(crate) const RELAY_TIMEOUT: Duration = Duration::from_secs(3);
/// Gaps are looked at this often while there are some. Nodes are near each other; a gap is repaired before clients notice.
pub(crate) const NACK_INTERVAL: Duration = Duration::from_millis(5);
/// Messages that wait for a flush.
const MAX_CONTROL: usize = 4_096;
/// Packets to be sent again that wait for a flush.
const MAX_RESENDS: usize = 2_048;

/// A message that waits for a flush.
#[derive(Clone, Debug)]
pub(crate) enum RelayControl {
    Nack { handle: u32, layer: u8, seqs: Vec<SeqNo> },
    KeyframeRequest { handle: u32, layer: u8 },
    LayersWanted { handle: u32, mask: u8 },
    SenderReport { handle: u32, layer: u8, rtp_timestamp: u32, ntp_unix_us: i64 },
    TrackEnded { handle: u32 },
    Ping { id: u32, sent_at_us: u64 },
    Pong { id: u32, sent_at_us: u64 },
}

/// A packet to be sent again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RelayResend {
    pub(crate) handle: u32,
    pub(crate) track: TrackKey,
    pub(crate) layer: u8,
    pub(crate) seq: ExtSeq,
}

/// A layer of a track that comes in.
#[derive(Debug)]
pub(crate) struct ImportLayer {
    pub(crate) register: NackRegister,
    pub(crate) highest: Option<ExtSeq>,
    pub(crate) descriptors: Reader,
    /// The next packet has no relation to what came before.
    pub(crate) is_restarting: bool,
    clock_rate: u32,
}

/// A track that comes in.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) track: TrackKey,
    pub(crate) layers: Vec<ImportLayer>,
}

/// One association.
#[derive(Debug)]
pub(crate) struct RelayLink {
    pub(crate) id: RelayId,
    pub(crate) remote: SocketAddr,
    /// Where the other node's datagrams come to; unset before the first.
    pub(crate) local: Option<SocketAddr>,
    pub(crate) opener: Opener,
    pub(crate) sealer: Sealer,
    tx_key: RelayKey,
    pub(crate) imports: HashMap<u32, Import>,
    /// Tracks that came in over it until they moved to another relay, as long as they still may.
    pub(crate) formers: HashMap<u32, TrackKey>,
    pub(crate) exports: HashMap<u32, TrackKey>,
    pub(crate) control: Vec<RelayControl>,
    pub(crate) resends: Vec<RelayResend>,
    /// Exports with packets in this flush: handle, track, layers.
    pub(crate) due: Vec<(u32, TrackKey, u8)>,
    /// Data of rooms; unset while none is carried.
    pub(crate) data: Option<Box<RelayPort>>,
    pub(crate) clock: RemoteClock,
    pub(crate) alarm: Alarm,
    pub(crate) is_dirty: bool,
    pub(crate) is_up: bool,
    heard_at: Instant,
    ping_at: Instant,
    nack_at: Instant,
    pings: u32,
    rtt: Option<Duration>,
    pub(crate) rx_packets: u64,
    pub(crate) tx_packets: u64,
    /// Control messages over the bound, since they were counted.
    pub(crate) dropped_control: u64,
}

impl RelayLink {
    pub(crate) fn new(now: Instant, id: RelayId, tag: u32, remote: SocketAddr, tx: &RelayKey, rx: &RelayKey) -> Self {
        Self {
            id,
            remote,
            local: None,
            opener: Opener::new(&rx.key, &rx.salt),
            sealer: Sealer::new(tag, &tx.key, &tx.salt),
            tx_key: tx.clone(),
            imports: HashMap::new(),
            formers: HashMap::new(),
            exports: HashMap::new(),
            control: Vec::new(),
            resends: Vec::new(),
            due: Vec::new(),
            data: None,
            clock: RemoteClock::default(),
            alarm: Alarm::default(),
            is_dirty: false,
            is_up: false,
            heard_at: now,
            ping_at: now,
            nack_at: now,
            pings: 0,
            rtt: None,
            rx_packets: 0,
            tx_packets: 0,
            dropped_control: 0,
        }
    }

    /// New keys for the same association: packet numbers begin anew, tracks stay.
    pub(crate) fn rekey(&mut self, now: Instant, tag: u32, remote: SocketAddr, tx: &RelayKey, rx: &RelayKey) {
        self.remote = remote;
        // The same order again, after a lost reply: beginning anew with a used key would use its nonces twice.
        if self.tx_key.key == tx.key && self.tx_key.salt == tx.salt {
            return;
        }
        self.tx_key = tx.clone();
        self.opener = Opener::new(&rx.key, &rx.salt);
        self.sealer = Sealer::new(tag, &tx.key, &tx.salt);
        if let Some(data) = &mut self.data {
            data.restart();
        }
        self.is_up = false;
        self.heard_at = now;
        self.ping_at = now;
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.rtt.unwrap_or_default()
    }

    pub(crate) fn push(&mut self, message: RelayControl) {
        if self.control.len() < MAX_CONTROL {
            self.control.push(message);
        } else {
            self.dropped_control += 1;
        }
    }

    pub(crate) fn push_resend(&mut self, resend: RelayResend) -> bool {
        let has_room = self.resends.len() < MAX_RESENDS;
        if has_room {
            self.resends.push(resend);
        }
        has_room
    }

    /// Something authentic came. True if the other node counts as back by it.
    pub(crate) fn hear(&mut self, now: Instant) -> bool {
        self.heard_at = now;
        self.rx_packets += 1;
        !std::mem::replace(&mut self.is_up, true)
    }

    pub(crate) fn take_pong(&mut self, now_us: u64, sent_at_us: u64) {
        let sample = Duration::from_micros(now_us.saturating_sub(sent_at_us));
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
    }

    /// Pings if due, and repeats what may have been lost. Also true if the other node fell silent just now.
    pub(crate) fn tick(&mut self, now: Instant, now_us: u64) -> bool {
        if now >= self.ping_at {
            self.ping_at = now + PING_INTERVAL;
            self.pings = self.pings.wrapping_add(1);
            self.push(RelayControl::Ping { id: self.pings, sent_at_us: now_us });
        }
        if now >= self.nack_at {
            self.nack_at = now + NACK_INTERVAL;
            self.collect_nacks(now);
        }
        let is_lost = self.is_up && now.saturating_duration_since(self.heard_at) >= RELAY_TIMEOUT;
        self.is_up &= !is_lost;
        is_lost
    }

    fn collect_nacks(&mut self, now: Instant) {
        let rtt = self.rtt;
        let mut nacks = Vec::new();
        for (handle, import) in &mut self.imports {
            for (number, layer) in import.layers.iter_mut().enumerate() {
                let seqs: Vec<SeqNo> = layer.register.poll_nacks(now, rtt).collect();
                if !seqs.is_empty() {
                    nacks.push(RelayControl::Nack { handle: *handle, layer: number as u8, seqs });
                }
            }
        }
        nacks.into_iter().for_each(|nack| self.push(nack));
    }

    /// Layers of which packets were given up since the last call: only a key frame helps those who need them.
    pub(crate) fn take_hopeless(&mut self) -> Vec<(TrackKey, u8)> {
        let mut hopeless = Vec::new();
        for import in self.imports.values_mut() {
            let layers = import.layers.iter_mut().enumerate();
            let given_up = layers.filter_map(|(n, layer)| layer.register.take_hopeless().then_some(n as u8));
            hopeless.extend(given_up.map(|layer| (import.track, layer)));
        }
        hopeless
    }

    pub(crate) fn next_timeout(&self, now: Instant) -> Instant {
        let data = self.data.as_ref().and_then(|d| d.next_timeout());
        let ping_at = data.map_or(self.ping_at, |at| at.min(self.ping_at));
        let mut missing = self.imports.values().flat_map(|i| &i.layers);
        match missing.any(|l| l.register.has_missing()) {
            true => ping_at.min(self.nack_at.max(now)),
            false => ping_at,
        }
    }
}

impl Import {
    pub(crate) fn new(track: TrackKey, layer_count: usize, codec: Codec) -> Self {
        Self { track, layers: (0..layer_count).map(|_| ImportLayer::new(codec.clock_rate())).collect() }
    }
}

impl ImportLayer {
    fn new(clock_rate: u32) -> Self {
        Self {
            register: NackRegister::new(clock_rate, true),
            highest: None,
            descriptors: Reader::new(),
            is_restarting: false,
            clock_rate,
        }
    }

    /// The layer was off and comes back: what lies between was never sent.
    pub(crate) fn restart(&mut self) {
        self.register = NackRegister::new(self.clock_rate, true);
        self.is_restarting = true;
    }
}

impl RelayControl {
    /// As it goes over the wire.
    pub(crate) fn message(&self) -> Message<'_> {
        match *self {
            Self::Nack { handle, layer, ref seqs } => Message::Nack { handle, layer, seqs: SeqList::Numbers(seqs) },
            Self::KeyframeRequest { handle, layer } => Message::KeyframeRequest { handle, layer },
            Self::LayersWanted { handle, mask } => Message::LayersWanted { handle, mask, temporal: u8::MAX },
            Self::SenderReport { handle, layer, rtp_timestamp, ntp_unix_us } => {
                Message::SenderReport { handle, layer, rtp_timestamp, ntp_unix_us }
            }
            Self::TrackEnded { handle } => Message::TrackEnded { handle },
            Self::Ping { id, sent_at_us } => Message::Ping { id, sent_at_us },
            Self::Pong { id, sent_at_us } => Message::Pong { id, sent_at_us },
        }
    }
}
