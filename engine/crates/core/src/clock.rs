//! This node's wall clock, as a function of the shard's time.

use std::time::{Duration, Instant};

/// Seconds from 1900 (NTP) to 1970 (Unix).
const NTP_TO_UNIX_S: i64 = 2_208_988_800;
/// An estimate of a remote clock that is this far off was of another clock: begin anew.
const MAX_STEP_US: i64 = 2_000_000;
/// How fast an estimate may grow again: 200 parts in a million, more than clocks drift.
const DRIFT_PPM: i64 = 200;
/// Growth of a longer silence counts no more than this.
const MAX_ELAPSED_US: i64 = 60_000_000;

/// Maps shard time to Unix and NTP time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
    unix_us_at_epoch: i64,
}

impl Clock {
    pub(crate) fn new(epoch: Instant, unix_us_at_epoch: i64) -> Self {
        Self { epoch, unix_us_at_epoch }
    }

    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
    }

    pub(crate) fn unix_us(&self, now: Instant) -> i64 {
        self.unix_us_at_epoch + now.saturating_duration_since(self.epoch).as_micros() as i64
    }

    /// 32.32 bits, seconds since 1900.
    pub(crate) fn ntp(&self, now: Instant) -> u64 {
        ntp_of_unix_us(self.unix_us(now))
    }

    /// The middle 32 bits.
    pub(crate) fn compact_ntp(&self, now: Instant) -> u32 {
        (self.ntp(now) >> 16) as u32
    }
}

/// NTP time of Unix microseconds.
pub(crate) fn ntp_of_unix_us(unix_us: i64) -> u64 {
    let us = unix_us + NTP_TO_UNIX_S * 1_000_000;
    let (seconds, rest) = (us.div_euclid(1_000_000) as u64, us.rem_euclid(1_000_000) as u64);
    (seconds << 32) | ((rest << 32) / 1_000_000)
}

/// Unix microseconds of NTP time.
pub(crate) fn unix_us_of_ntp(ntp: u64) -> i64 {
    let seconds = (ntp >> 32) as i64 - NTP_TO_UNIX_S;
    let us = ((ntp & 0xffff_ffff) * 1_000_000) >> 32;
    seconds * 1_000_000 + us as i64
}

/// A duration of 1/65536 s units.
pub(crate) fn duration_of_compact(units: u32) -> Duration {
    Duration::from_micros(u64::from(units) * 1_000_000 / 65_536)
}

/// A duration in units of 1/65536 s.
pub(crate) fn compact_of(duration: Duration) -> u32 {
    (duration.as_micros() * 65_536 / 1_000_000) as u32
}

/// How far a remote clock is from ours: the least delay seen stands for the path, so all streams of one sender keep
/// their distance on our clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RemoteClock {
    offset_us: Option<i64>,
    /// When the estimate was made.
    at_us: i64,
}

impl RemoteClock {
    /// A report of the remote clock's `remote_us` came at our `local_us`. Returns its time on our clock.
    pub(crate) fn local_us(&mut self, remote_us: i64, local_us: i64) -> i64 {
        let sample = local_us.saturating_sub(remote_us);
        let offset = match self.offset_us {
            Some(offset) if offset.abs_diff(sample) < MAX_STEP_US as u64 => {
                let elapsed_us = local_us.saturating_sub(self.at_us).clamp(0, MAX_ELAPSED_US);
                sample.min(offset + elapsed_us * DRIFT_PPM / 1_000_000)
            }
            _ => sample,
        };
        (self.offset_us, self.at_us) = (Some(offset), local_us);
        remote_us.saturating_add(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_and_unix_time_convert_both_ways() {
        let unix_us = 1_700_000_000_123_456;
        assert_eq!(ntp_of_unix_us(unix_us) >> 32, 1_700_000_000 + 2_208_988_800);
        assert!(unix_us_of_ntp(ntp_of_unix_us(unix_us)).abs_diff(unix_us) <= 1);
    }

    #[test]
    fn the_least_delay_stands_for_the_path() {
        let mut clock = RemoteClock::default();
        assert_eq!(clock.local_us(1_000_000, 5_050_000), 5_050_000);
        assert_eq!(clock.local_us(2_000_000, 6_020_000), 6_020_000);
        assert_eq!(clock.local_us(3_000_000, 7_090_000), 7_020_000 + 214);
        // Another clock altogether.
        assert_eq!(clock.local_us(900_000_000, 8_000_000), 8_000_000);
    }
}
