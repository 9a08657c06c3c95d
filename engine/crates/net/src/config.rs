//! Settings of an engine.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Most workers; more cores than this serve one process badly.
const MAX_WORKERS: usize = 128;

/// Whether and where ICE-TCP is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpPort {
    /// No ICE-TCP.
    Off,
    /// Worker n listens at this port plus n; 0 is any free port for each.
    From(u16),
}

/// What an engine is made of.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Addresses put into ICE candidates, most preferred first; at least one.
    pub advertised_ips: Vec<IpAddr>,
    /// What the sockets bind to. `::` takes IPv4 too.
    pub bind_ip: IpAddr,
    /// Worker n takes this port plus n; 0 is any free port for each.
    pub udp_port: u16,
    /// ICE-TCP.
    pub tcp_port: TcpPort,
    /// Threads; 0 is one for each core that the process may use.
    pub workers: usize,
    /// Transports of all workers together.
    pub max_transports: usize,
    /// Longest time that a packet waits for others of its burst.
    pub tick: Duration,
    /// DSCP (RFC 2474) of everything that is sent, 0 to 63; 34 (AF41) is what RFC 8837 gives video in a conversation.
    pub media_dscp: u8,
    /// Bind worker n to the n-th core that the process may use.
    pub pin_workers: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            advertised_ips: vec![IpAddr::from([127, 0, 0, 1])],
            bind_ip: IpAddr::from([0, 0, 0, 0]),
            udp_port: 0,
            tcp_port: TcpPort::From(0),
            workers: 0,
            max_transports: 10_000,
            tick: Duration::from_millis(2),
            media_dscp: 0,
            pin_workers: false,
        }
    }
}

impl EngineConfig {
    /// The number of threads that will run.
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_WORKERS),
            n => n,
        }
    }

    pub(crate) fn check(&self) -> io::Result<()> {
        let wrong = |reason: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        let is_any = |ip: &IpAddr| ip.is_unspecified() || ip.is_multicast();
        let is_reachable = |ip: &IpAddr| self.bind_ip.is_ipv6() || ip.is_ipv4();
        if self.advertised_ips.is_empty() || self.advertised_ips.iter().any(is_any) {
            return wrong("advertised_ips must hold at least one address, each of one host");
        }
        if !self.advertised_ips.iter().all(is_reachable) {
            return wrong("an IPv6 address is advertised but bind_ip is IPv4");
        }
        if self.worker_count() > MAX_WORKERS {
            return wrong("workers must be 128 at most");
        }
        if self.tick > Duration::from_millis(50) {
            return wrong("tick must be 50 ms at most");
        }
        if self.media_dscp > 63 {
            return wrong("media_dscp must be 63 at most");
        }
        let last = self.worker_count() as u32 - 1;
        let fits = |port: u16| port == 0 || u32::from(port) + last <= 65_535;
        let tcp_port = if let TcpPort::From(port) = self.tcp_port { port } else { 0 };
        if !fits(self.udp_port) || !fits(tcp_port) {
            return wrong("the ports of all workers must be 65535 at most");
        }
        Ok(())
    }

    pub(crate) fn udp_bind(&self, worker: usize) -> SocketAddr {
        SocketAddr::new(self.bind_ip, port_of(self.udp_port, worker))
    }

    pub(crate) fn tcp_bind(&self, worker: usize) -> Option<SocketAddr> {
        match self.tcp_port {
            TcpPort::Off => None,
            TcpPort::From(port) => Some(SocketAddr::new(self.bind_ip, port_of(port, worker))),
        }
    }
}

fn port_of(first: u16, worker: usize) -> u16 {
    if first == 0 { 0 } else { first + worker as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_settings_are_told() {
        let good = EngineConfig { workers: 2, ..EngineConfig::default() };
        assert!(good.check().is_ok());
        for bad in [
            EngineConfig { advertised_ips: vec![], ..good.clone() },
            EngineConfig { advertised_ips: vec!["0.0.0.0".parse().unwrap()], ..good.clone() },
            EngineConfig { advertised_ips: vec!["::1".parse().unwrap()], ..good.clone() },
            EngineConfig { workers: 1_000, ..good.clone() },
            EngineConfig { udp_port: 65_535, ..good.clone() },
            EngineConfig { tcp_port: TcpPort::From(65_535), ..good.clone() },
            EngineConfig { tick: Duration::from_secs(1), ..good.clone() },
            EngineConfig { media_dscp: 64, ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn workers_take_consecutive_ports() {
        let config = EngineConfig { udp_port: 5_000, tcp_port: TcpPort::Off, workers: 2, ..EngineConfig::default() };
        assert_eq!(config.udp_bind(1).port(), 5_001);
        assert_eq!(config.tcp_bind(1), None);
    }
}
