//! RTCP that a transport sends on its own: reports, and feedback to what it receives.

use std::time::Instant;

use mrtc_rtp::id::{SeqNo, Ssrc};
use mrtc_rtp::rtcp::{
    ReportBlock, SenderInfo, write_delay, write_fir, write_nack, write_pli, write_receiver_report,
    write_reference_time, write_sdes_cname, write_sender_report,
};
use slab::Slab;

use super::Transport;
use crate::clock::{Clock, compact_of, ntp_of_unix_us};
use crate::sdp::CNAME;
use crate::slot::Slot;
use crate::track::Track;

/// A compound packet is ended when it is longer: it stays below every path's limit with SRTCP's overhead.
const MAX_COMPOUND: usize = 1_100;
/// Report blocks of one packet (the count has five bits).
const MAX_BLOCKS: usize = 31;

impl Transport {
    /// Sender reports of all slots that sent, and receiver reports of all streams.
    pub(crate) fn send_reports(&mut self, now: Instant, clock: &Clock, tracks: &Slab<Track>) {
        let mut compound = Vec::new();
        let path_loss = self.tx.bandwidth.take_loss();
        let most = self.tx.most_protection();
        let (rtt, spare) = (self.tx.bandwidth.rtt(), self.tx.bandwidth.spare_share());
        for index in 0..self.tx.slots.len() {
            let slot = &mut self.tx.slots[index];
            slot.adapt_fec(rtt, spare);
            if slot.figures.packets == slot.figures.packets_at_report {
                continue;
            }
            slot.figures.packets_at_report = slot.figures.packets;
            slot.review_protection(path_loss, most);
            let Some(info) = sender_info(slot, now, clock, tracks) else { continue };
            write_sender_report(&mut compound, &info, &[]);
            write_sdes_cname(&mut compound, info.ssrc, CNAME);
            self.send_if_full(&mut compound);
        }
        let blocks = self.report_blocks(now);
        for blocks in blocks.chunks(MAX_BLOCKS) {
            write_receiver_report(&mut compound, self.local_ssrc, blocks);
            write_sdes_cname(&mut compound, self.local_ssrc, CNAME);
            self.send_if_full(&mut compound);
        }
        self.write_limit(&mut compound);
        self.write_round_trip(&mut compound, now, clock, !blocks.is_empty());
        if !compound.is_empty() {
            self.tx.push_rtcp(compound);
        }
    }

    /// Extended reports: our question for the round trip, if the client sends anything, and the answer to its own. A
    /// compound begins with a report, so they go along with one or not at all.
    fn write_round_trip(&mut self, compound: &mut Vec<u8>, now: Instant, clock: &Clock, is_receiving: bool) {
        if is_receiving {
            if compound.is_empty() {
                compound.append(&mut self.begin_feedback());
            }
            write_reference_time(compound, self.local_ssrc, clock.ntp(now));
        }
        if let Some((ssrc, time, came_at)) = self.reference_time.take() {
            if compound.is_empty() {
                compound.append(&mut self.begin_feedback());
            }
            write_delay(compound, self.local_ssrc, ssrc, time, compact_of(now.saturating_duration_since(came_at)));
        }
    }

    fn send_if_full(&mut self, compound: &mut Vec<u8>) {
        if compound.len() > MAX_COMPOUND / 2 {
            self.tx.push_rtcp(std::mem::take(compound));
        }
    }

    fn report_blocks(&mut self, now: Instant) -> Vec<ReportBlock> {
        let mut blocks = Vec::new();
        for stream in &mut self.rx.streams.list {
            let Some(figures) = stream.register.report() else { continue };
            let (last_sr, delay_since_last_sr) = stream.report_delay(now);
            blocks.push(ReportBlock {
                ssrc: stream.ssrc,
                fraction_lost: figures.fraction_lost,
                cumulative_lost: figures.cumulative_lost,
                highest_seq: figures.highest_seq,
                jitter: figures.jitter,
                last_sr,
                delay_since_last_sr,
            });
        }
        blocks
    }

    /// What a feedback packet begins with: a client that did not agree to reduced size gets a whole compound.
    pub(super) fn begin_feedback(&self) -> Vec<u8> {
        let mut compound = Vec::new();
        if !self.is_rtcp_reduced() {
            write_receiver_report(&mut compound, self.local_ssrc, &[]);
            write_sdes_cname(&mut compound, self.local_ssrc, CNAME);
        }
        compound
    }

    /// Asks for lost packets of all streams.
    pub(crate) fn send_nacks(&mut self, now: Instant) {
        let rtt = self.known_rtt();
        let mut compound = Vec::new();
        let mut seqs: Vec<SeqNo> = Vec::new();
        for stream in &mut self.rx.streams.list {
            if !stream.register.has_missing() {
                continue;
            }
            seqs.clear();
            seqs.extend(stream.register.poll_nacks(now, rtt));
            stream.nacks += seqs.len() as u64;
            write_nack(&mut compound, self.local_ssrc, stream.ssrc, seqs.iter().copied());
        }
        if !compound.is_empty() {
            let mut whole = self.begin_feedback();
            whole.append(&mut compound);
            self.tx.push_rtcp(whole);
        }
    }

    /// Asks the client for a key frame of a stream. False if nothing could be sent.
    pub(crate) fn send_keyframe_request(&mut self, stream: usize) -> bool {
        let mut compound = self.begin_feedback();
        let sender = self.local_ssrc;
        let Some(stream) = self.rx.streams.list.get_mut(stream) else { return false };
        stream.keyframe_requests += 1;
        if stream.format().is_none_or(|f| f.has_pli) {
            write_pli(&mut compound, sender, stream.ssrc);
        } else {
            stream.fir_count = stream.fir_count.wrapping_add(1);
            write_fir(&mut compound, sender, stream.ssrc, stream.fir_count);
        }
        self.tx.push_rtcp(compound);
        true
    }

    /// Transport-wide feedback, if due.
    pub(crate) fn send_transport_cc(&mut self, now: Instant) {
        let media = self.rx.streams.list.first().map_or(Ssrc(0), |s| s.ssrc);
        if self.rx.twcc.next_timeout().is_none_or(|at| at > now) {
            return;
        }
        self.rx.settle_feedback(now);
        loop {
            let mut compound = self.begin_feedback();
            if !self.rx.twcc.write_feedback(now, self.local_ssrc, media, &mut compound) {
                return;
            }
            self.tx.push_rtcp(compound);
        }
    }
}

/// What a slot's sender report says: its timestamp now, by the publisher's clock if that is known.
fn sender_info(slot: &Slot, now: Instant, clock: &Clock, tracks: &Slab<Track>) -> Option<SenderInfo> {
    let (newest, sent_at) = slot.forwarder.rewriter().newest_timestamp()?;
    let carried = slot.carried.as_ref()?;
    let clock_rate = carried.format.clock_rate;
    let unix_us = clock.unix_us(now);
    let by_publisher = slot.forwarder.timestamp_delta().and_then(|(layer, delta)| {
        let report = tracks.get(carried.track.index())?.layers.get(usize::from(layer))?.sender_report?;
        Some(report.timestamp_at(unix_us, clock_rate).wrapping_add(delta))
    });
    let elapsed_us = now.saturating_duration_since(sent_at).as_micros() as u64;
    let by_arrival = newest.wrapping_add((elapsed_us * u64::from(clock_rate) / 1_000_000) as u32);
    Some(SenderInfo {
        ssrc: slot.source.ssrc,
        ntp: ntp_of_unix_us(unix_us),
        rtp_timestamp: by_publisher.unwrap_or(by_arrival),
        packet_count: slot.figures.packets,
        octet_count: slot.figures.octets,
    })
}
