//! Opens sockets towards one server: their source addresses, their options, their TLS state.
//!
//! Owns: the turn of source addresses, so that ports never run out. Never: connects (the engine
//! does), reads or writes.

use crate::client::Endpoint;
use crate::tls;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use shards::io::sys;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Makes the sockets of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub endpoint: Arc<Endpoint>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    sources: Arc<[IpAddr]>,
    next: usize,
}

impl Dialer {
    /// `sources`: addresses of this machine to connect from, in turn. None given: 127.0.0.2 to
    /// 127.0.0.250 towards a loopback server, otherwise the kernel's choice.
    pub(crate) fn new(endpoint: Endpoint, sources: &[IpAddr]) -> io::Result<Self> {
        let config = endpoint.tls.then(tls::unverified).transpose().map_err(io::Error::other)?;
        let name = ServerName::IpAddress(endpoint.address.ip().into());
        let loopback = matches!(endpoint.address.ip(), IpAddr::V4(ip) if ip.is_loopback());
        let sources = match sources {
            [] if loopback => SOURCES.map(|last| Ipv4Addr::new(127, 0, 0, last).into()).collect(),
            given => given.into(),
        };
        let tls = config.map(|config| (config, name));
        Ok(Self { endpoint: Arc::new(endpoint), tls, sources, next: 0 })
    }

    /// The same for worker `index`: it starts at another source address.
    pub(crate) fn of_worker(&self, index: usize) -> Self {
        Self { next: index * 7, ..self.clone() }
    }

    /// A socket that is bound to its source and not connected.
    pub(crate) fn socket(&mut self) -> io::Result<OwnedFd> {
        let source = (!self.sources.is_empty()).then(|| {
            self.next += 1;
            self.sources[self.next % self.sources.len()]
        });
        sys::dialer(self.endpoint.address, source).map_err(|error| {
            match (error.kind(), source) {
                // Binding chooses no port yet: it is the address itself.
                (io::ErrorKind::AddrNotAvailable, Some(source)) => io::Error::other(format!(
                    "{source} is no address of this machine (--bind-addrs)"
                )),
                _ => error,
            }
        })
    }

    /// The TLS state of a new connection, if the server speaks TLS.
    pub(crate) fn tls(&self) -> io::Result<Option<Box<ClientConnection>>> {
        let Some((config, name)) = &self.tls else { return Ok(None) };
        let connection = ClientConnection::new(config.clone(), name.clone());
        let mut connection = connection.map_err(io::Error::other)?;
        connection.set_buffer_limit(None);
        Ok(Some(Box::new(connection)))
    }
}

/// The last bytes of the loopback source addresses: 249 times the ports of one address.
const SOURCES: std::ops::RangeInclusive<u8> = 2..=250;
