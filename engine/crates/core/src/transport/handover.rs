//! A transport leaves for another node, or comes from one.

use std::time::{Duration, Instant};

use mrtc_rtp::id::{ExtSeq, Ssrc};
use mrtc_rtp::srtp::{Highest, Inbound, MasterKey, Outbound, Profile, SessionKeys, SrtpError};

use super::Transport;
use crate::addr::Proto;
use crate::clock::Clock;
use crate::error::Error;
use crate::handover::{IceState, KeyState, MAX_CHECKPOINT_AGE, Purpose, SlotState, StreamState, TransportState};
use crate::handshake::{IceCredentials, RemoteParams};
use crate::rtp_rewriter::Position;
use crate::sdp::{LineUse, Negotiated, SlotSource};
use crate::slot::Slot;

/// A timestamp's age counts no more than this: the nodes' clocks may differ, and a jump on the stream is a gap in play-out.
const MAX_AGE: Duration = Duration::from_secs(10);
/// How far a checkpoint's numbers are ahead: less than half of what a receiver takes for the same roll-over (RFC 3711 3.3.1).
const PACKETS_AHEAD: u64 = 1 << 14;
/// RTCP says its whole index.
const RTCP_AHEAD: u32 = 1 << 20;
const FRAMES_AHEAD: u16 = 1000;
/// The index of SRTP has 48 bits.
const MAX_INDEX: u64 = (1 << 48) - 1;

/// How quickly the streams to a client go, from checkpoint to checkpoint.
#[derive(Default)]
pub(super) struct Pace {
    last: Option<(Instant, Vec<u64>)>,
}

impl Pace {
    /// True if no stream can send `PACKETS_AHEAD` within the age of a checkpoint, were it twice as quick as since the last look,
    /// which must not be longer ago than that.
    fn is_slow(&mut self, now: Instant, slots: &[Slot]) -> bool {
        let numbers: Vec<u64> = slots.iter().flat_map(numbers).collect();
        let Some((at, before)) = self.last.replace((now, numbers.clone())) else { return false };
        let elapsed = now.saturating_duration_since(at);
        let most =
            numbers.iter().zip(&before).map(|(now, before)| now.saturating_sub(*before)).max().unwrap_or_default();
        let per_age = most as f64 * MAX_CHECKPOINT_AGE.as_secs_f64() / elapsed.as_secs_f64().max(0.1);
        elapsed <= MAX_CHECKPOINT_AGE && before.len() == numbers.len() && 2.0 * per_age < PACKETS_AHEAD as f64
    }
}

impl Transport {
    /// What another node needs to meet the client or to go on. After `GoOn` nothing is sealed and nothing opened here any
    /// more: no SRTP index can be used twice, and no packet be taken at both. The client's checks are answered until the
    /// transport is closed, of which it hears nothing.
    pub(crate) fn hand_over(&mut self, now: Instant, clock: &Clock, purpose: Purpose) -> Result<TransportState, Error> {
        let refused = |why: &str| Error::BadRequest(format!("transport {} {why}", self.id));
        if self.negotiated.data_line().is_some() {
            return Err(refused("has data channels, whose state cannot leave DTLS"));
        }
        let (Some(keys), true) = (&self.keys, self.handshake.is_connected()) else {
            return Err(refused("is not connected"));
        };
        if purpose == Purpose::Checkpoint && !self.pace.get_or_insert_default().is_slow(now, &self.tx.slots) {
            return Err(refused("may send too quickly for a checkpoint"));
        }
        let next_rtcp_index = match purpose {
            Purpose::GoOn => self.tx.hand_over(),
            Purpose::Meet | Purpose::Checkpoint => self.tx.next_rtcp_index(),
        };
        let Some(next_rtcp_index) = next_rtcp_index else { return Err(refused("was handed over before")) };
        let local = self.handshake.local_params();
        let remote = &self.negotiated.remote;
        let plain = |highest: Highest| highest.into_iter().map(|(ssrc, index)| (ssrc.0, index)).collect();
        let (rtp_received, rtcp_received) = self.rx.received();
        if purpose == Purpose::GoOn {
            self.handshake.hand_over();
            self.rx.hand_over();
        }
        let is_final = purpose != Purpose::Meet;
        let key = |key: &MasterKey| if is_final { key_state(key) } else { KeyState::default() };
        let state = TransportState {
            is_final,
            moves: self.moves.saturating_add(1),
            profile: keys.profile.dtls_id(),
            tx: key(&keys.tx),
            rx: key(&keys.rx),
            is_dtls_client: self.handshake.is_dtls_client(),
            fingerprint: local.fingerprint.to_string(),
            remote_fingerprints: fingerprints(remote),
            local_ice: ice_state(&local.ice),
            remote_ice: ice_state(&remote.ice),
            remote: self.handshake.path().filter(|path| path.proto == Proto::Udp).map(|path| path.remote),
            session: self.negotiated.session.parts(),
            last_ssrc: self.ssrcs.last().0,
            local_ssrc: self.local_ssrc.0,
            next_rtcp_index,
            transport_cc: self.tx.transport_cc,
            estimate_bps: self.tx.bandwidth.estimate_bps(),
            slots: self.tx.slots.iter().map(|slot| slot_state(slot, now, clock)).collect(),
            streams: self.rx.streams.list.iter().map(|stream| self.stream_state(stream)).collect(),
            rtp_received: plain(rtp_received),
            rtcp_received: plain(rtcp_received),
        };
        Ok(if purpose == Purpose::Checkpoint { state.ahead() } else { state })
    }

    fn stream_state(&self, stream: &super::streams::StreamRx) -> StreamState {
        StreamState {
            mid: self.negotiated.lines[stream.line].mid.to_string(),
            layer: stream.layer,
            ssrc: stream.ssrc.0,
            rtx: stream.rtx.map(|ssrc| ssrc.0),
        }
    }

    /// Keeps what the client sends until another node has let go.
    pub(crate) fn await_keys(&mut self) {
        self.rx.hold();
    }

    /// Takes what the client sends, as another node did; after `apply_negotiated`.
    pub(crate) fn take_over_receiving(&mut self, state: &TransportState, max_ssrcs: usize) -> Result<(), Error> {
        let keys = session_keys(state)?;
        let mut inbound = Inbound::new(&keys).map_err(unusable_keys)?;
        let with_ssrc = |seen: &[(u32, u64)]| -> Highest {
            seen.iter().map(|(ssrc, index)| (Ssrc(*ssrc), (*index).min(MAX_INDEX))).collect()
        };
        inbound.resume(&with_ssrc(&state.rtp_received), &with_ssrc(&state.rtcp_received));
        self.rx.set_srtp(inbound);
        for stream in &state.streams {
            let lines = &self.negotiated.lines;
            let is_its = |l: &crate::sdp::NegotiatedLine| l.mid.as_str() == stream.mid && l.usage == LineUse::Inbound;
            if let Some(index) = lines.iter().position(is_its) {
                let (ssrc, rtx) = (Ssrc(stream.ssrc), stream.rtx.map(Ssrc));
                self.rx.streams.resume(index, stream.layer, ssrc, rtx, &lines[index], max_ssrcs);
            }
        }
        Ok(())
    }

    /// True if it was imported, sends nothing yet, and the state is of the same client.
    pub(crate) fn is_awaiting(&self, state: &TransportState) -> bool {
        let is_same = fingerprints(&self.negotiated.remote) == state.remote_fingerprints;
        is_same && self.handshake.is_elsewhere() && !self.tx.is_ready() && self.keys.is_none()
    }

    /// Goes on sending where another node ended, by its final state.
    pub(crate) fn take_over_sending(
        &mut self,
        now: Instant,
        clock: &Clock,
        state: &TransportState,
    ) -> Result<(), Error> {
        let keys = session_keys(state)?;
        let mut outbound = Outbound::new(&keys).map_err(unusable_keys)?;
        outbound.resume_rtcp(state.next_rtcp_index);
        self.tx.hold(outbound);
        if self.handshake.is_connected() {
            self.tx.release();
        }
        self.keys = Some(keys);
        self.local_ssrc = Ssrc(state.local_ssrc);
        self.tx.transport_cc = state.transport_cc;
        self.tx.bandwidth.resume(now, state.estimate_bps);
        for slot in &mut self.tx.slots {
            if let Some(state) = state.slot(slot.mid.as_str()) {
                resume_slot(slot, state, now, clock);
            }
        }
        Ok(())
    }
}

impl TransportState {
    /// Leaves room for what is sent until the state is used.
    fn ahead(mut self) -> Self {
        self.next_rtcp_index = self.next_rtcp_index.saturating_add(RTCP_AHEAD);
        for slot in &mut self.slots {
            for seq in [&mut slot.seq, &mut slot.rtx_seq, &mut slot.fec_seq] {
                *seq += PACKETS_AHEAD;
            }
            slot.picture_id = slot.picture_id.wrapping_add(FRAMES_AHEAD);
            slot.frame_number = slot.frame_number.wrapping_add(FRAMES_AHEAD);
        }
        self
    }

    fn slot(&self, mid: &str) -> Option<&SlotState> {
        self.slots.iter().find(|slot| slot.mid == mid)
    }

    /// Makes a first negotiation here the next one of a client that has had others: what its offer may not change is as it
    /// was, and the streams of slots keep their SSRCs.
    pub(crate) fn settle(&self, negotiated: &mut Negotiated) -> Result<(), Error> {
        if self.remote_fingerprints != fingerprints(&negotiated.remote) {
            let reason = "the certificate's fingerprint changed; that takes a new transport";
            return Err(Error::BadOffer(reason.into()));
        }
        if negotiated.data_line().is_some() {
            return Err(Error::BadOffer("data channels take a new transport".into()));
        }
        negotiated.session = crate::sdp::Session::of(self.session).next();
        for line in &mut negotiated.lines {
            if let (Some(fresh), Some(known)) = (line.tx, self.slot(line.mid.as_str())) {
                line.tx = Some(SlotSource {
                    ssrc: Ssrc(known.ssrc),
                    rtx: fresh.rtx.map(|fresh| known.rtx.map_or(fresh, Ssrc)),
                    fec: fresh.fec.map(|fresh| known.fec.map_or(fresh, Ssrc)),
                });
            }
        }
        Ok(())
    }

    /// What the client was given for its checks, if this offer of it does not restart ICE.
    pub(crate) fn kept_credentials(&self, remote: &RemoteParams) -> Option<IceCredentials> {
        let IceState { ufrag, pwd } = &self.local_ice;
        (self.remote_ice == ice_state(&remote.ice)).then(|| IceCredentials { ufrag: ufrag.clone(), pwd: pwd.clone() })
    }
}

fn fingerprints(remote: &RemoteParams) -> Vec<String> {
    remote.fingerprints.iter().map(ToString::to_string).collect()
}

fn ice_state(ice: &IceCredentials) -> IceState {
    IceState { ufrag: ice.ufrag.clone(), pwd: ice.pwd.clone() }
}

fn key_state(key: &MasterKey) -> KeyState {
    let (key, salt) = key.parts();
    KeyState { key: key.to_vec(), salt: salt.to_vec() }
}

fn unusable_keys(_: SrtpError) -> Error {
    Error::BadRequest("the state of the transport has no usable SRTP keys".into())
}

fn session_keys(state: &TransportState) -> Result<SessionKeys, Error> {
    let profile = Profile::from_dtls_id(state.profile);
    let profile =
        profile.ok_or_else(|| Error::BadRequest("the state of the transport has an unknown cipher".into()))?;
    let master = |key: &KeyState| MasterKey::new(&key.key, &key.salt);
    Ok(SessionKeys { profile, tx: master(&state.tx), rx: master(&state.rx) })
}

fn numbers(slot: &Slot) -> [u64; 3] {
    let (position, rtx_seq, fec_seq) = slot.positions();
    [position.seq.0, rtx_seq.0, fec_seq.0]
}

fn slot_state(slot: &Slot, now: Instant, clock: &Clock) -> SlotState {
    let (position, rtx_seq, fec_seq) = slot.positions();
    let age_us = |at: Instant| now.saturating_duration_since(at).as_micros() as i64;
    SlotState {
        mid: slot.mid.to_string(),
        ssrc: slot.source.ssrc.0,
        rtx: slot.source.rtx.map(|ssrc| ssrc.0),
        fec: slot.source.fec.map(|ssrc| ssrc.0),
        seq: position.seq.0,
        rtx_seq: rtx_seq.0,
        fec_seq: fec_seq.0,
        timestamp: position.timestamp,
        sent_at_us: position.sent_at.map(|at| clock.unix_us(now) - age_us(at)),
        picture_id: position.picture_id,
        tl0_pic_idx: position.tl0_pic_idx,
        frame_number: position.frame_number,
    }
}

fn resume_slot(slot: &mut Slot, state: &SlotState, now: Instant, clock: &Clock) {
    let index = |n: u64| ExtSeq(n.min(MAX_INDEX));
    let sent_at = state.sent_at_us.map(|at_us| {
        let age_us = u64::try_from(clock.unix_us(now).saturating_sub(at_us)).unwrap_or_default();
        now.checked_sub(Duration::from_micros(age_us).min(MAX_AGE)).unwrap_or(now)
    });
    let position = Position {
        seq: index(state.seq),
        timestamp: state.timestamp,
        sent_at,
        picture_id: state.picture_id,
        tl0_pic_idx: state.tl0_pic_idx,
        frame_number: state.frame_number,
    };
    slot.resume(position, index(state.rtx_seq), index(state.fec_seq));
}
