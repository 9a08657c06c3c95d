//! Writes the header extensions of a slot's packets (RFC 8285).
//!
//! The set is fixed at negotiation, so that the size of the block is known before the packet is written and packets of a
//! frame come out equally large, which is what joins them into one run.

use mrtc_rtp::ext::{ExtKind, ExtMap, ONE_BYTE_PROFILE, TWO_BYTE_PROFILE};
use mrtc_rtp::id::Mid;

use crate::packet::Packet;

/// Longest element of the one-byte form.
const MAX_ONE_BYTE_LEN: usize = 16;
/// Highest id of the one-byte form.
const MAX_ONE_BYTE_ID: u8 = 14;

/// Ids of what is sent on a slot; 0: not negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotExts {
    mid: u8,
    transport_cc: u8,
    abs_send_time: u8,
    audio_level: u8,
    orientation: u8,
    dd: u8,
    is_two_byte_allowed: bool,
    needs_two_byte: bool,
}

/// Values of one packet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SlotExtValues<'a> {
    /// Sent with the first packets, until the receiver has learnt the SSRC.
    pub(crate) mid: Option<&'a Mid>,
    /// Transport-wide sequence number, or else the absolute send time (6.18 fixed point seconds); never both are sent.
    pub(crate) stamp: u32,
    /// The source packet; none for padding.
    pub(crate) packet: Option<&'a Packet>,
    /// Replaces the frame number in the dependency descriptor.
    pub(crate) frame_number: Option<u16>,
}

impl SlotExts {
    /// Of a line's map. The absolute send time is sent only to those who cannot do transport-wide feedback.
    pub(crate) fn new(map: &ExtMap, is_two_byte_allowed: bool) -> Self {
        let id = |kind| map.id_of(kind).unwrap_or(0);
        let transport_cc = id(ExtKind::TransportCc);
        let abs_send_time = if transport_cc == 0 { id(ExtKind::AbsSendTime) } else { 0 };
        let mut exts = Self {
            mid: id(ExtKind::Mid),
            transport_cc,
            abs_send_time,
            audio_level: id(ExtKind::AudioLevel),
            orientation: id(ExtKind::VideoOrientation),
            dd: id(ExtKind::DependencyDescriptor),
            is_two_byte_allowed,
            needs_two_byte: false,
        };
        let ids = [exts.mid, exts.transport_cc, exts.abs_send_time, exts.audio_level, exts.orientation, exts.dd];
        exts.needs_two_byte = ids.iter().any(|id| *id > MAX_ONE_BYTE_ID);
        exts
    }

    /// True if packets carry a transport-wide sequence number.
    pub(crate) fn has_transport_cc(&self) -> bool {
        self.transport_cc != 0
    }

    fn is_two_byte(&self, dd_len: usize) -> bool {
        self.needs_two_byte || dd_len > MAX_ONE_BYTE_LEN
    }

    /// Bytes of the descriptor that will be sent; one that the negotiated form cannot hold is left out.
    fn dd_len(&self, values: &SlotExtValues<'_>) -> usize {
        let len = values.packet.map_or(0, |p| p.dependency_descriptor().len());
        let fits = len <= MAX_ONE_BYTE_LEN || (self.is_two_byte_allowed && len <= 255);
        if self.dd != 0 && fits { len } else { 0 }
    }

    /// Length of the block with its four-byte head; zero if there is nothing to write.
    pub(crate) fn len(&self, values: &SlotExtValues<'_>) -> usize {
        let dd_len = self.dd_len(values);
        let head = if self.is_two_byte(dd_len) { 2 } else { 1 };
        let mut len = 0;
        let mut add = |id: u8, value: usize| {
            if id != 0 && value > 0 {
                len += head + value;
            }
        };
        add(self.mid, values.mid.map_or(0, |m| m.as_bytes().len()));
        add(self.transport_cc, 2);
        add(self.abs_send_time, 3);
        add(self.audio_level, usize::from(values.packet.is_some_and(|p| p.audio_level.is_some())));
        add(self.orientation, usize::from(values.packet.is_some_and(|p| p.orientation.is_some())));
        add(self.dd, dd_len);
        if len == 0 { 0 } else { 4 + len.next_multiple_of(4) }
    }

    /// Writes the block; `out` is exactly as long as [`SlotExts::len`] said.
    pub(crate) fn write(&self, values: &SlotExtValues<'_>, out: &mut [u8]) {
        if out.len() < 4 {
            return;
        }
        let dd_len = self.dd_len(values);
        let is_two_byte = self.is_two_byte(dd_len);
        let profile = if is_two_byte { TWO_BYTE_PROFILE } else { ONE_BYTE_PROFILE };
        let words = (out.len() / 4 - 1) as u16;
        out[..2].copy_from_slice(&profile.to_be_bytes());
        out[2..4].copy_from_slice(&words.to_be_bytes());
        let mut writer = Writer { out: &mut out[4..], is_two_byte };
        if let Some(mid) = values.mid {
            writer.put(self.mid, mid.as_bytes());
        }
        writer.put(self.transport_cc, &values.stamp.to_be_bytes()[2..]);
        writer.put(self.abs_send_time, &values.stamp.to_be_bytes()[1..]);
        if let Some(packet) = values.packet {
            if let Some(audio) = packet.audio_level {
                writer.put(self.audio_level, &[u8::from(audio.is_voice) << 7 | audio.level & 0x7f]);
            }
            if let Some(orientation) = packet.orientation {
                writer.put(self.orientation, &[orientation]);
            }
            if dd_len > 0 {
                let at = writer.put(self.dd, packet.dependency_descriptor());
                patch_frame_number(at, values.frame_number);
            }
        }
        writer.out.fill(0);
    }
}

/// The descriptor's mandatory part is one byte of flags and template, then the frame number in two (AV1 RTP A.8.1).
fn patch_frame_number(descriptor: &mut [u8], frame_number: Option<u16>) {
    if let (Some(number), Some(field)) = (frame_number, descriptor.get_mut(1..3)) {
        field.copy_from_slice(&number.to_be_bytes());
    }
}

struct Writer<'a> {
    out: &'a mut [u8],
    is_two_byte: bool,
}

impl<'a> Writer<'a> {
    /// Writes an element and returns where its data lies.
    fn put(&mut self, id: u8, data: &[u8]) -> &'a mut [u8] {
        if id == 0 {
            return &mut [];
        }
        let head = if self.is_two_byte { 2 } else { 1 };
        let (element, rest) = std::mem::take(&mut self.out).split_at_mut(head + data.len());
        self.out = rest;
        if self.is_two_byte {
            element[0] = id;
            element[1] = data.len() as u8;
        } else {
            element[0] = id << 4 | (data.len() as u8).wrapping_sub(1);
        }
        element[head..].copy_from_slice(data);
        &mut element[head..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::packet;
    use mrtc_rtp::ext::AudioLevel;
    use std::time::Instant;

    fn map(ids: &[(u8, ExtKind)]) -> ExtMap {
        let mut map = ExtMap::new();
        for &(id, kind) in ids {
            assert!(map.set(id, kind));
        }
        map
    }

    fn written(exts: &SlotExts, values: &SlotExtValues<'_>) -> Vec<u8> {
        let mut out = vec![0xee; exts.len(values)];
        exts.write(values, &mut out);
        out
    }

    #[test]
    fn what_is_written_is_read_back() {
        let map =
            map(&[(4, ExtKind::Mid), (3, ExtKind::TransportCc), (2, ExtKind::AbsSendTime), (1, ExtKind::AudioLevel)]);
        let exts = SlotExts::new(&map, false);
        let mut packet = packet(1, Instant::now());
        packet.audio_level = Some(AudioLevel { level: 30, is_voice: true });
        let mid = Mid::new("12").unwrap();
        let values = SlotExtValues { mid: Some(&mid), stamp: 77, packet: Some(&packet), ..Default::default() };
        let out = written(&exts, &values);
        assert_eq!(out.len() % 4, 0);
        let read = map.parse(ONE_BYTE_PROFILE, &out[4..]);
        assert_eq!((read.mid, read.transport_cc), (Some(mid), Some(77)));
        assert_eq!(read.audio_level, packet.audio_level);
        assert_eq!(read.abs_send_time, None);
    }

    #[test]
    fn a_long_descriptor_takes_the_two_byte_form_and_its_new_frame_number() {
        let map = map(&[(12, ExtKind::DependencyDescriptor), (3, ExtKind::TransportCc)]);
        let mut packet = packet(1, Instant::now());
        packet.data = vec![9; 40];
        packet.dd_len = 30;
        let values =
            SlotExtValues { stamp: 7, packet: Some(&packet), frame_number: Some(0x1234), ..Default::default() };
        let out = written(&SlotExts::new(&map, true), &values);
        let read = map.parse(u16::from_be_bytes([out[0], out[1]]), &out[4..]);
        let descriptor = read.dependency_descriptor.unwrap();
        assert_eq!((descriptor.len(), &descriptor[..4]), (30, &[9, 0x12, 0x34, 9][..]));
        // Not allowed: the descriptor is left out, the rest stays.
        let out = written(&SlotExts::new(&map, false), &values);
        let read = map.parse(u16::from_be_bytes([out[0], out[1]]), &out[4..]);
        assert_eq!((read.dependency_descriptor, read.transport_cc), (None, Some(7)));
    }

    #[test]
    fn nothing_negotiated_is_no_block() {
        assert_eq!(SlotExts::new(&ExtMap::new(), true).len(&SlotExtValues::default()), 0);
    }
}
