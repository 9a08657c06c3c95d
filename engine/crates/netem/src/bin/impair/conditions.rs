//! What a link does to packets, as text: `loss=0.4 delay_ms=50`.

use std::time::Duration;

use mrtc_netem::{BurstLoss, LinkConfig};

/// A minute: longer delays are typing errors, and would hold packets in memory.
const MAX_MS: f64 = 60_000.0;

/// Reads `KEY=VALUE` words; what is not named is as on a perfect wire.
pub fn parse(words: &[&str]) -> Result<LinkConfig, String> {
    let mut config = LinkConfig::default();
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{word}: not KEY=VALUE"))?;
        set(&mut config, key, value).ok_or_else(|| format!("{word}: unknown key or wrong value"))?;
    }
    Ok(config)
}

fn set(config: &mut LinkConfig, key: &str, value: &str) -> Option<()> {
    match key {
        "loss" => config.loss = chance(value)?,
        "burst" => config.burst_loss = Some(burst(value)?),
        "delay_ms" => config.delay = millis(value)?,
        "jitter_ms" => config.jitter = millis(value)?,
        "reorder" => config.reorder = chance(value)?,
        "reorder_ms" => config.reorder_delay = millis(value)?,
        "rate_bps" => config.rate_bps = Some(value.parse().ok().filter(|rate| *rate > 0)?),
        "queue_bytes" => config.queue_bytes = value.parse().ok()?,
        "duplicate" => config.duplicate = chance(value)?,
        _ => return None,
    }
    Some(())
}

fn chance(value: &str) -> Option<f64> {
    value.parse().ok().filter(|p| (0.0..=1.0).contains(p))
}

fn millis(value: &str) -> Option<Duration> {
    let ms: f64 = value.parse().ok().filter(|ms| (0.0..=MAX_MS).contains(ms))?;
    Some(Duration::from_secs_f64(ms / 1000.0))
}

/// `TO_BAD,TO_GOOD,LOSS`.
fn burst(value: &str) -> Option<BurstLoss> {
    let chances: Vec<f64> = value.split(',').map(chance).collect::<Option<_>>()?;
    let [to_bad, to_good, loss] = chances[..] else { return None };
    Some(BurstLoss { to_bad, to_good, loss })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key() {
        let text = "loss=0.4 burst=0.1,0.5,1 delay_ms=50 jitter_ms=2.5 reorder=0.1 reorder_ms=9 rate_bps=500000 \
                    queue_bytes=9000 duplicate=0.2";
        let words: Vec<&str> = text.split_whitespace().collect();
        let expected = LinkConfig {
            loss: 0.4,
            burst_loss: Some(BurstLoss { to_bad: 0.1, to_good: 0.5, loss: 1.0 }),
            delay: Duration::from_millis(50),
            jitter: Duration::from_micros(2500),
            reorder: 0.1,
            reorder_delay: Duration::from_millis(9),
            rate_bps: Some(500_000),
            queue_bytes: 9000,
            duplicate: 0.2,
        };
        assert_eq!(parse(&words), Ok(expected));
        assert_eq!(parse(&[]), Ok(LinkConfig::default()));
    }

    #[test]
    fn wrong_words_are_refused() {
        for word in ["loss", "loss=2", "loss=-1", "loss=NaN", "delay_ms=1e9", "rate_bps=0", "burst=1,2", "colour=red"] {
            assert!(parse(&[word]).is_err(), "{word}");
        }
    }
}
