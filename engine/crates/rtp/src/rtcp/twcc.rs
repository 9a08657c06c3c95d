//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1).
//!
//! Reference time counts 64 ms, deltas count 250 us ([`TICKS_PER_REFERENCE`] of them make one reference unit).

use super::{ReadBytes, begin_packet, end_packet, packet_type};
use crate::error::ParseError;
use crate::id::{SeqNo, Ssrc};

/// Microseconds of one delta unit.
pub const TICK_US: i64 = 250;
/// Delta units in a unit of the reference time.
pub const TICKS_PER_REFERENCE: i64 = 256;

const NOT_RECEIVED: u8 = 0;
const SMALL_DELTA: u8 = 1;
const LARGE_DELTA: u8 = 2;
const MAX_RUN: u16 = 0x1fff;
/// A gap that is surely written as a run, whatever is beside it.
const LONG_GAP: usize = 2 * ONE_BIT_SYMBOLS;
const ONE_BIT_SYMBOLS: usize = 14;
const TWO_BIT_SYMBOLS: usize = 7;

/// A parsed feedback packet.
#[derive(Clone, Copy, Debug)]
pub struct TransportCc<'a> {
    /// Who reports.
    pub sender: Ssrc,
    /// Any stream of the transport.
    pub media: Ssrc,
    /// First transport sequence number.
    pub base_seq: SeqNo,
    /// How many numbers are reported on.
    pub status_count: u16,
    /// Units of 64 ms on the receiver's clock, 24 bits with sign.
    pub reference_time: i32,
    /// Counts feedback packets, wraps.
    pub feedback_count: u8,
    chunks: &'a [u8],
}

impl<'a> TransportCc<'a> {
    pub(super) fn parse(mut body: &'a [u8]) -> Result<Self, ParseError> {
        let what = "RTCP transport feedback";
        let (sender, media) = (Ssrc(body.u32(what)?), Ssrc(body.u32(what)?));
        let [s0, s1, c0, c1, r0, r1, r2, feedback_count] = body.take(what)?;
        Ok(Self {
            sender,
            media,
            base_seq: SeqNo(u16::from_be_bytes([s0, s1])),
            status_count: u16::from_be_bytes([c0, c1]),
            reference_time: i32::from_be_bytes([r0, r1, r2, 0]) >> 8,
            feedback_count,
            chunks: body,
        })
    }

    /// The reference time in delta units (250 us).
    pub fn reference_ticks(&self) -> i64 {
        i64::from(self.reference_time) * TICKS_PER_REFERENCE
    }

    /// (transport sequence number, delta to the arrival before in units of 250 us; `None`: not received).
    ///
    /// The first delta counts from [`Self::reference_ticks`]. Ends early if the packet is shorter than it says.
    pub fn statuses(&self) -> Statuses<'a> {
        let chunk_bytes = chunks_len(self.chunks, self.status_count);
        let (chunks, deltas) = self.chunks.split_at(chunk_bytes);
        Statuses { seq: self.base_seq, left: self.status_count, chunks, symbols: Symbols::default(), deltas }
    }
}

/// Bytes that the chunks take which report on `count` packets.
fn chunks_len(bytes: &[u8], count: u16) -> usize {
    let (mut covered, mut used) = (0u32, 0);
    for chunk in bytes.as_chunks::<2>().0 {
        if covered >= u32::from(count) {
            break;
        }
        covered += Symbols::new(u16::from_be_bytes(*chunk)).left as u32;
        used += 2;
    }
    used
}

/// The symbols that are left of a chunk.
#[derive(Clone, Copy, Debug, Default)]
struct Symbols {
    left: u16,
    /// Symbols to come, the next one in the high bits; a run repeats its one symbol.
    bits: u16,
    width: u32,
}

impl Symbols {
    fn new(chunk: u16) -> Self {
        if chunk & 0x8000 == 0 {
            return Self { left: chunk & MAX_RUN, bits: chunk << 1, width: 0 };
        }
        if chunk & 0x4000 == 0 {
            return Self { left: ONE_BIT_SYMBOLS as u16, bits: chunk << 2, width: 1 };
        }
        Self { left: TWO_BIT_SYMBOLS as u16, bits: chunk << 2, width: 2 }
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        self.left = self.left.checked_sub(1)?;
        let symbol = if self.width == 1 { self.bits >> 15 } else { self.bits >> 14 };
        self.bits <<= self.width;
        Some(symbol as u8)
    }
}

/// See [`TransportCc::statuses`].
#[derive(Clone, Debug)]
pub struct Statuses<'a> {
    seq: SeqNo,
    left: u16,
    chunks: &'a [u8],
    symbols: Symbols,
    deltas: &'a [u8],
}

impl Statuses<'_> {
    #[inline]
    fn next_symbol(&mut self) -> Option<u8> {
        loop {
            if let Some(symbol) = self.symbols.next() {
                return Some(symbol);
            }
            let (chunk, rest) = self.chunks.split_first_chunk::<2>()?;
            self.chunks = rest;
            self.symbols = Symbols::new(u16::from_be_bytes(*chunk));
        }
    }

    #[inline]
    fn next_delta(&mut self, symbol: u8) -> Option<Option<i16>> {
        if symbol == SMALL_DELTA {
            let (&delta, rest) = self.deltas.split_first()?;
            self.deltas = rest;
            return Some(Some(i16::from(delta)));
        }
        if symbol == LARGE_DELTA {
            let (delta, rest) = self.deltas.split_first_chunk::<2>()?;
            self.deltas = rest;
            return Some(Some(i16::from_be_bytes(*delta)));
        }
        // 3 is reserved; it has no delta.
        Some(None)
    }
}

impl Iterator for Statuses<'_> {
    type Item = (SeqNo, Option<i16>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let symbol = self.next_symbol()?;
        let delta = self.next_delta(symbol)?;
        let seq = self.seq;
        self.seq = seq + 1;
        Some((seq, delta))
    }
}

/// Collects arrivals in the order of sequence numbers and writes feedback packets.
///
/// Use: [`Self::new`] with the first packet, [`Self::push`] with the following ones until it refuses one (then begin
/// a new packet with that one), [`Self::write`]. Keeps its buffers when it is begun anew with [`Self::begin`].
#[derive(Clone, Debug)]
pub struct TransportCcBuilder {
    base_seq: SeqNo,
    reference_time: i64,
    last_ticks: i64,
    symbols: Vec<u8>,
    deltas: Vec<u8>,
    /// Symbols outside of long gaps: each chunk covers at least seven of them, but for the last.
    dense: usize,
    /// Most chunks that the long gaps take: their runs, and one at either side that is cut short by them.
    gap_chunks: usize,
    max_len: usize,
}

/// Fixed part: header, two SSRCs, base, count, reference time.
const FIXED_LEN: usize = 20;

impl TransportCcBuilder {
    /// Begins with the arrival of `seq` at `ticks` (250 us on any clock of the receiver). The packet gets at most
    /// `max_len` bytes.
    pub fn new(seq: SeqNo, ticks: i64, max_len: usize) -> Self {
        let mut builder = Self {
            base_seq: seq,
            reference_time: 0,
            last_ticks: 0,
            symbols: Vec::new(),
            deltas: Vec::new(),
            dense: 0,
            gap_chunks: 0,
            max_len: max_len.max(FIXED_LEN + 8),
        };
        builder.begin(seq, ticks);
        builder
    }

    /// Begins anew.
    pub fn begin(&mut self, seq: SeqNo, ticks: i64) {
        self.base_seq = seq;
        self.reference_time = ticks.div_euclid(TICKS_PER_REFERENCE);
        self.last_ticks = self.reference_time * TICKS_PER_REFERENCE;
        self.symbols.clear();
        self.deltas.clear();
        (self.dense, self.gap_chunks) = (0, 0);
        self.push(seq, ticks);
    }

    /// Adds the arrival of `seq`; numbers in between were not received. False, and no change, if `seq` is not above
    /// the last one, the packet is full, or the time is too far from the last arrival (8 s).
    pub fn push(&mut self, seq: SeqNo, ticks: i64) -> bool {
        let offset = usize::from(seq.0.wrapping_sub(self.base_seq.0));
        // Half the circle: what is beyond it is below the base.
        if offset < self.symbols.len() || offset >= 1 << 15 {
            return false;
        }
        let Ok(delta) = i16::try_from(ticks - self.last_ticks) else { return false };
        let is_small = (0..256).contains(&delta);
        let gap = offset - self.symbols.len();
        let is_long_gap = gap > LONG_GAP;
        let dense = self.dense + 1 + if is_long_gap { 0 } else { gap };
        let gap_chunks = self.gap_chunks + if is_long_gap { 2 + gap.div_ceil(usize::from(MAX_RUN)) } else { 0 };
        let chunks_len = 2 * (dense.div_ceil(TWO_BIT_SYMBOLS) + gap_chunks);
        if FIXED_LEN + chunks_len + self.deltas.len() + 2 + 3 > self.max_len {
            return false;
        }
        (self.dense, self.gap_chunks) = (dense, gap_chunks);
        self.symbols.resize(offset, NOT_RECEIVED);
        if is_small {
            self.symbols.push(SMALL_DELTA);
            self.deltas.push(delta as u8);
        } else {
            self.symbols.push(LARGE_DELTA);
            self.deltas.extend(delta.to_be_bytes());
        }
        self.last_ticks = ticks;
        true
    }

    /// How many sequence numbers the packet reports on.
    pub fn status_count(&self) -> usize {
        self.symbols.len()
    }

    /// The number behind the last one reported on.
    pub fn next_seq(&self) -> SeqNo {
        self.base_seq + self.symbols.len() as u16
    }

    /// Appends the packet.
    pub fn write(&self, out: &mut Vec<u8>, sender: Ssrc, media: Ssrc, feedback_count: u8) {
        let start = begin_packet(out, 15, packet_type::RTPFB);
        out.extend(sender.0.to_be_bytes());
        out.extend(media.0.to_be_bytes());
        out.extend(self.base_seq.0.to_be_bytes());
        out.extend((self.symbols.len() as u16).to_be_bytes());
        let reference = self.reference_time as u32 & 0xff_ffff;
        out.extend((reference << 8 | u32::from(feedback_count)).to_be_bytes());
        write_chunks(out, &self.symbols);
        out.extend(&self.deltas);
        write_padding(out, start);
        end_packet(out, start);
    }
}

/// Pads to four bytes the RTCP way: the padding bit is set and the last byte counts.
fn write_padding(out: &mut Vec<u8>, start: usize) {
    let len = (out.len() - start).next_multiple_of(4);
    let padding = len - (out.len() - start);
    if padding > 0 {
        out.resize(start + len, 0);
        out[start] |= 0x20;
        if let Some(last) = out.last_mut() {
            *last = padding as u8;
        }
    }
}

/// Chooses for each chunk what covers most symbols: a run, 14 symbols of one bit, 7 of two.
fn write_chunks(out: &mut Vec<u8>, symbols: &[u8]) {
    let mut rest = symbols;
    while let Some(&first) = rest.first() {
        let run = rest.iter().take(usize::from(MAX_RUN)).take_while(|&&s| s == first).count();
        let narrow = rest.iter().take(ONE_BIT_SYMBOLS).take_while(|&&s| s <= SMALL_DELTA).count();
        let is_narrow = narrow == ONE_BIT_SYMBOLS.min(rest.len());
        let (chunk, used) =
            if run >= TWO_BIT_SYMBOLS.min(rest.len()) && (run >= ONE_BIT_SYMBOLS || !is_narrow || run == rest.len()) {
                (u16::from(first) << 13 | run as u16, run)
            } else if is_narrow {
                let bits = pack(rest, ONE_BIT_SYMBOLS, 1);
                (0x8000 | bits, narrow)
            } else {
                (0xc000 | pack(rest, TWO_BIT_SYMBOLS, 2), TWO_BIT_SYMBOLS.min(rest.len()))
            };
        out.extend(chunk.to_be_bytes());
        rest = &rest[used..];
    }
}

fn pack(symbols: &[u8], count: usize, width: usize) -> u16 {
    (0..count).fold(0, |bits, i| bits << width | u16::from(symbols.get(i).copied().unwrap_or(NOT_RECEIVED)))
}
