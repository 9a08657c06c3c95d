//! `EngineConfig`.

use std::net::IpAddr;
use std::time::Duration;

use mrtc_net::TcpPort;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::log::LogFormat;

#[pyclass(frozen, module = "mrtc_engine._engine")]
pub struct EngineConfig {
    pub net: mrtc_net::EngineConfig,
    pub log_filter: String,
    pub log_format: LogFormat,
}

#[pymethods]
impl EngineConfig {
    #[new]
    #[pyo3(signature = (*, advertised_ips, bind_ip="0.0.0.0", udp_port=0, tcp_port=0, workers=0, max_transports=10_000,
                        tick_us=2_000, media_dscp=0, pin_workers=false, log_filter="info", log_format="json"))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        advertised_ips: Vec<String>,
        bind_ip: &str,
        udp_port: u16,
        tcp_port: i32,
        workers: usize,
        max_transports: usize,
        tick_us: u64,
        media_dscp: u8,
        pin_workers: bool,
        log_filter: &str,
        log_format: &str,
    ) -> PyResult<Self> {
        let advertised_ips = advertised_ips.iter().map(|ip| parse_ip("advertised_ips", ip)).collect::<PyResult<_>>()?;
        let tcp_port = match tcp_port {
            -1 => TcpPort::Off,
            port => TcpPort::From(u16::try_from(port).map_err(|_| value_error("tcp_port must be -1 to 65535"))?),
        };
        let net = mrtc_net::EngineConfig {
            advertised_ips,
            bind_ip: parse_ip("bind_ip", bind_ip)?,
            udp_port,
            tcp_port,
            workers,
            max_transports,
            tick: Duration::from_micros(tick_us),
            media_dscp,
            pin_workers,
        };
        Ok(Self { net, log_filter: log_filter.to_owned(), log_format: LogFormat::parse(log_format)? })
    }
}

fn parse_ip(name: &str, text: &str) -> PyResult<IpAddr> {
    text.parse().map_err(|_| value_error(format!("{name}: {text:?} is not an IP address")))
}

/// A `ValueError`.
pub fn value_error(message: impl Into<String>) -> PyErr {
    PyValueError::new_err(message.into())
}
