//! Where datagrams come from and go to.

use std::net::SocketAddr;

/// What carries a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proto {
    /// One datagram is one UDP packet.
    Udp,
    /// ICE-TCP: datagrams framed by RFC 4571; the shell frames and unframes.
    Tcp,
}

/// An address of this shard that goes into SDP answers as a host candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CandidateAddr {
    /// UDP, or passive TCP.
    pub proto: Proto,
    /// As clients reach it.
    pub addr: SocketAddr,
}

/// Where a run of datagrams goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dest {
    /// By which protocol.
    pub proto: Proto,
    /// Our own address that the other side sends to; answers leave from it.
    pub local: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
}
