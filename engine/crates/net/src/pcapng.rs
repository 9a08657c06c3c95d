//! The pcapng format (draft-ietf-opsawg-pcapng), as far as a capture needs it: one section, one interface of raw IP.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mrtc_core::capture::CapturedPacket;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const INTERFACE_STATISTICS: u32 = 5;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// LINKTYPE_RAW: packets begin with an IPv4 or IPv6 header.
const RAW_IP: u16 = 101;
const UDP: u8 = 17;
const UDP_LEN: usize = 8;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;

/// Length of what `write_tail` writes.
pub(crate) const TAIL_LEN: usize = 12 + 12 + 2 * (4 + 8) + 4;

/// Section header and interface description. Times are in microseconds, which is the default resolution.
pub(crate) fn write_head(out: &mut Vec<u8>) {
    block(out, SECTION_HEADER, |out| {
        out.extend(BYTE_ORDER.to_le_bytes());
        out.extend(1_u16.to_le_bytes());
        out.extend(0_u16.to_le_bytes());
        out.extend((-1_i64).to_le_bytes()); // section length: not told
    });
    block(out, INTERFACE, |out| {
        out.extend(RAW_IP.to_le_bytes());
        out.extend([0; 2]);
        out.extend(0_u32.to_le_bytes()); // no limit of length
    });
}

/// One packet. Its UDP and IP headers are made up of its addresses; what was left out of it counts in their lengths.
pub(crate) fn write_packet(out: &mut Vec<u8>, at: Duration, packet: &CapturedPacket) {
    let us = at.as_micros() as u64;
    block(out, ENHANCED_PACKET, |out| {
        let headers = headers(packet);
        let (captured, original) = (headers.len() + packet.bytes.len(), headers.len() + packet.len);
        out.extend(0_u32.to_le_bytes()); // interface
        out.extend(((us >> 32) as u32).to_le_bytes());
        out.extend((us as u32).to_le_bytes());
        out.extend((captured as u32).to_le_bytes());
        out.extend((original as u32).to_le_bytes());
        out.extend(headers);
        out.extend(&packet.bytes);
    });
}

/// How many packets there were, and how many copies were dropped.
pub(crate) fn write_tail(out: &mut Vec<u8>, written: u64, dropped: u64) {
    const RECEIVED: u16 = 4;
    const DROPPED: u16 = 5;
    block(out, INTERFACE_STATISTICS, |out| {
        out.extend([0; 12]); // interface, time: not told
        for (option, value) in [(RECEIVED, written + dropped), (DROPPED, dropped)] {
            out.extend(option.to_le_bytes());
            out.extend(8_u16.to_le_bytes());
            out.extend(value.to_le_bytes());
        }
        out.extend([0; 4]); // end of options
    });
}

/// Type, length, body filled up to 32 bits, length again.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    out.resize(start + (out.len() - start).next_multiple_of(4), 0);
    let len = ((out.len() - start + 4) as u32).to_le_bytes();
    out[start + 4..start + 8].copy_from_slice(&len);
    out.extend(len);
}

fn headers(packet: &CapturedPacket) -> Vec<u8> {
    let udp_len = (UDP_LEN + packet.len).min(usize::from(u16::MAX)) as u16;
    let mut out = match (packet.from.ip(), packet.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip = [0; IPV4_LEN];
            (ip[0], ip[8], ip[9]) = (0x45, 64, UDP);
            ip[2..4].copy_from_slice(&(IPV4_LEN as u16).saturating_add(udp_len).to_be_bytes());
            ip[12..16].copy_from_slice(&from.octets());
            ip[16..20].copy_from_slice(&to.octets());
            let checksum = checksum(&ip).to_be_bytes();
            ip[10..12].copy_from_slice(&checksum);
            ip.to_vec()
        }
        _ => {
            let mut ip = [0; IPV6_LEN];
            (ip[0], ip[6], ip[7]) = (0x60, UDP, 64);
            ip[4..6].copy_from_slice(&udp_len.to_be_bytes());
            ip[8..24].copy_from_slice(&v6(packet.from).octets());
            ip[24..40].copy_from_slice(&v6(packet.to).octets());
            ip.to_vec()
        }
    };
    // No checksum: the bytes it would be over are not all there.
    for value in [packet.from.port(), packet.to.port(), udp_len, 0] {
        out.extend(value.to_be_bytes());
    }
    out
}

fn v6(addr: SocketAddr) -> Ipv6Addr {
    match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Of an IPv4 header (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(folded + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn packet(from: &str, to: &str) -> CapturedPacket {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        CapturedPacket { at: Instant::now(), from, to, len: 100, bytes: vec![7; 13] }
    }

    fn word(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    /// Type and bytes of each block; lengths at both ends agree.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let len = word(bytes, 4);
            assert_eq!((len % 4, word(bytes, len - 4)), (0, len));
            all.push((word(bytes, 0) as u32, &bytes[8..len - 4]));
            bytes = &bytes[len..];
        }
        all
    }

    #[test]
    fn a_file_has_whole_blocks() {
        let mut out = Vec::new();
        write_head(&mut out);
        write_packet(&mut out, Duration::from_micros(1 << 33 | 5), &packet("10.0.0.1:5", "10.0.0.2:6"));
        let before = out.len();
        write_tail(&mut out, 1, 2);
        assert_eq!(out.len() - before, TAIL_LEN);
        let blocks = blocks(&out);
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION_HEADER, INTERFACE, ENHANCED_PACKET, INTERFACE_STATISTICS]);
        let packet = blocks[2].1;
        assert_eq!((word(packet, 4), word(packet, 8)), (2, 5));
        assert_eq!((word(packet, 12), word(packet, 16)), (20 + 8 + 13, 20 + 8 + 100));
    }

    #[test]
    fn headers_are_those_of_the_path() {
        let v4 = headers(&packet("10.0.0.1:258", "10.0.0.2:6"));
        assert_eq!((v4.len(), v4[0], v4[9]), (28, 0x45, UDP));
        assert_eq!((checksum(&v4[..20]), u16::from_be_bytes([v4[2], v4[3]])), (0, 128));
        assert_eq!(&v4[12..], [10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 0, 6, 0, 108, 0, 0]);
        let v6 = headers(&packet("[::1]:1", "10.0.0.2:6"));
        assert_eq!((v6.len(), v6[0], v6[6], v6[23], &v6[34..40]), (48, 0x60, UDP, 1, &[255, 255, 10, 0, 0, 2][..]));
    }
}
