//! The engine's own log goes to stderr: lines of JSON, or text for people.

use std::io;

use pyo3::prelude::*;
use tracing_subscriber::EnvFilter;

use crate::config::value_error;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

impl LogFormat {
    pub fn parse(text: &str) -> PyResult<Self> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(value_error("log_format must be json or text")),
        }
    }
}

/// Switches the log on. The first engine of a process decides; later calls change nothing.
pub fn init(filter: &str, format: LogFormat) -> PyResult<()> {
    let filter = EnvFilter::try_new(filter).map_err(|error| value_error(format!("log_filter: {error}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    // Fails if there is a subscriber already, which is what "the first decides" means.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    Ok(())
}
