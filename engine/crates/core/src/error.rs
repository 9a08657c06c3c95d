//! Why a command was refused. A closed list; each has a stable code that Python maps to `ErrorCode` of the protos.

use thiserror::Error;

/// Why a command was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The offer cannot be answered.
    #[error("the offer cannot be answered: {0}")]
    BadOffer(String),
    /// No such transport.
    #[error("no such transport: {0}")]
    TransportNotFound(String),
    /// No such track.
    #[error("no such track: {0}")]
    TrackNotFound(String),
    /// No such relay.
    #[error("no such relay: {0}")]
    RelayNotFound(String),
    /// No such sink.
    #[error("no such sink: {0}")]
    SinkNotFound(String),
    /// The id is in use for something else.
    #[error("{0} exists already")]
    AlreadyExists(String),
    /// A limit is reached.
    #[error("limit reached: {0}")]
    LimitExceeded(String),
    /// An argument is wrong.
    #[error("{0}")]
    BadRequest(String),
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadOffer(_) => "bad_offer",
            Self::TransportNotFound(_) => "transport_not_found",
            Self::TrackNotFound(_) => "track_not_found",
            Self::RelayNotFound(_) => "relay_not_found",
            Self::SinkNotFound(_) => "sink_not_found",
            Self::AlreadyExists(_) => "already_exists",
            Self::LimitExceeded(_) => "limit_exceeded",
            Self::BadRequest(_) => "bad_request",
        }
    }
}
