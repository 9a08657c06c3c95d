//! Opus packets (RFC 6716 section 3.1, RFC 7587).

use super::PayloadInfo;

/// Packets of at most this many bytes carry no voice: in DTX an encoder sends a TOC byte and at most one more.
const DTX_MAX_LEN: usize = 2;

pub(super) fn inspect(payload: &[u8]) -> PayloadInfo {
    PayloadInfo { is_silence: payload.len() <= DTX_MAX_LEN, ..PayloadInfo::audio() }
}

/// How much sound a packet holds, in samples at 48 kHz. `None` if it is not a packet that Opus allows.
pub fn duration_samples(payload: &[u8]) -> Option<u32> {
    let (&toc, rest) = payload.split_first()?;
    let config = toc >> 3;
    let frame = match config {
        0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
        12..=15 => [480, 960][usize::from(config & 1)],
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(rest.first()? & 0x3f),
    };
    // RFC 6716 R5: at most 120 ms.
    let total = frame * count;
    (count > 0 && total <= 5760).then_some(total)
}

/// True if the TOC byte says stereo.
pub fn is_stereo(payload: &[u8]) -> bool {
    payload.first().is_some_and(|toc| toc & 4 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration_samples(&[0x78, 1]), Some(960)); // CELT-only fullband 20 ms, one frame
        assert_eq!(duration_samples(&[31 << 3, 1]), Some(960));
        assert_eq!(duration_samples(&[16 << 3 | 3, 48]), Some(5760));
        assert_eq!(duration_samples(&[16 << 3 | 3, 49]), None);
        assert_eq!(duration_samples(&[3 << 3 | 1]), Some(5760));
        assert_eq!(duration_samples(&[3]), None);
        assert_eq!(duration_samples(&[]), None);
    }

    #[test]
    fn dtx_is_silence() {
        assert!(inspect(&[0x78]).is_silence);
        assert!(!inspect(&[0x78; 40]).is_silence);
        assert!(is_stereo(&[0x7c]));
    }
}
