//! Why bytes could not be read.

use thiserror::Error;

/// Why bytes could not be read. The text names the structure, never its content.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    /// The structure is longer than the input.
    #[error("truncated: {0}")]
    Truncated(&'static str),
    /// A field has a value that the structure does not allow.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}
