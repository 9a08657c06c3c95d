//! Reads bits, most significant first: for codec headers.

use crate::error::ParseError;

/// Reads bits, most significant first.
#[derive(Clone, Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Position in bits.
    at: usize,
    /// H.264 and H.265 put a 3 behind two zeros, which is no data (emulation prevention).
    skips_emulation: bool,
    what: &'static str,
}

impl<'a> BitReader<'a> {
    /// Of plain bytes; `what` names the structure in errors.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, at: 0, skips_emulation: false, what }
    }

    /// Of a NAL unit, without its emulation prevention bytes.
    pub fn of_nal(bytes: &'a [u8], what: &'static str) -> Self {
        Self { skips_emulation: true, ..Self::new(bytes, what) }
    }

    /// One bit.
    pub fn bit(&mut self) -> Result<bool, ParseError> {
        let mut index = self.at / 8;
        if self.skips_emulation
            && self.at.is_multiple_of(8)
            && index >= 2
            && self.bytes[index - 2..].starts_with(&[0, 0, 3])
        {
            self.at += 8;
            index += 1;
        }
        let byte = self.bytes.get(index).ok_or(ParseError::Truncated(self.what))?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Ok(bit != 0)
    }

    /// `n` bits as a number, n <= 32.
    pub fn bits(&mut self, n: u32) -> Result<u32, ParseError> {
        let mut value = 0u32;
        for _ in 0..n {
            value = value << 1 | u32::from(self.bit()?);
        }
        Ok(value)
    }

    /// Passes over `n` bits.
    pub fn skip(&mut self, n: u32) -> Result<(), ParseError> {
        for _ in 0..n {
            self.bit()?;
        }
        Ok(())
    }

    /// Unsigned Exp-Golomb (H.264 section 9.1; AV1's uvlc is the same).
    pub fn ue(&mut self) -> Result<u32, ParseError> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return Err(ParseError::Malformed(self.what));
            }
        }
        Ok(((1u64 << zeros) - 1 + u64::from(self.bits(zeros)?)) as u32)
    }

    /// Signed Exp-Golomb.
    pub fn se(&mut self) -> Result<i32, ParseError> {
        let k = i64::from(self.ue()?);
        Ok((if k & 1 == 1 { (k + 1) / 2 } else { -(k / 2) }) as i32)
    }

    /// Non-symmetric number of 0 to n-1 (AV1 section 4.10.7); n >= 1.
    pub fn ns(&mut self, n: u32) -> Result<u32, ParseError> {
        let w = n.checked_ilog2().map_or(0, |l| l + 1);
        let m = (1u64 << w) - u64::from(n);
        let v = self.bits(w.saturating_sub(1))?;
        if u64::from(v) < m {
            return Ok(v);
        }
        let extra = u32::from(self.bit()?);
        Ok((u64::from(v << 1) - m) as u32 + extra)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb() {
        // 1 010 011 00100 -> 0 1 2 3
        let bytes = [0b1010_0110, 0b0100_0000];
        let mut r = BitReader::new(&bytes, "test");
        assert_eq!([r.ue().unwrap(), r.ue().unwrap(), r.ue().unwrap(), r.ue().unwrap()], [0, 1, 2, 3]);
        let mut r = BitReader::new(&bytes, "test");
        assert_eq!([r.se().unwrap(), r.se().unwrap(), r.se().unwrap(), r.se().unwrap()], [0, 1, -1, 2]);
        assert!(BitReader::new(&[0; 8], "test").ue().is_err());
        assert_eq!(BitReader::new(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff], "test").ue().unwrap(), u32::MAX - 1);
    }

    #[test]
    fn emulation_prevention_is_skipped() {
        let mut r = BitReader::of_nal(&[0, 0, 3, 1, 0, 0, 3, 0xff], "test");
        assert_eq!(r.bits(24).unwrap(), 1);
        assert_eq!(r.bits(16).unwrap(), 0);
        assert_eq!(r.bits(8).unwrap(), 0xff);
        assert!(r.bit().is_err());
    }

    #[test]
    fn non_symmetric() {
        // n = 5: 00 01 10 110 111
        let bytes = [0b0001_1011, 0b0111_0000];
        let mut r = BitReader::new(&bytes, "test");
        assert_eq!((0..5).map(|_| r.ns(5).unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(r.ns(1).unwrap(), 0);
    }
}
