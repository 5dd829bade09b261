//! One socket, plain or TLS: dialling from rotating loopback addresses, one read and one write per
//! readiness, what the kernel did not take kept for later.
//!
//! Owns: the socket, the TLS state, unsent bytes. Never: protocols, events.

use crate::client::Endpoint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Opens connections to one server.
pub(crate) struct Dialer {
    pub endpoint: Endpoint,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    dialled: u32,
}

/// Source addresses 127.0.0.2 to 127.0.0.250 take turns, so that their ports do not run out.
const SOURCES: u32 = 249;

impl Dialer {
    pub(crate) fn new(endpoint: Endpoint) -> io::Result<Self> {
        let tls = endpoint.tls.then(unverified_tls).transpose().map_err(io::Error::other)?;
        let name = ServerName::IpAddress(endpoint.address.ip().into());
        Ok(Self { endpoint, tls: tls.map(|config| (config, name)), dialled: 0 })
    }

    /// Starts connecting; the socket is writable once it is connected, or broken.
    pub(crate) fn dial(&mut self) -> io::Result<Transport> {
        let target = self.endpoint.address;
        let domain = socket2::Domain::for_address(target);
        let kind = socket2::Type::STREAM.nonblocking();
        let socket = socket2::Socket::new(domain, kind, Some(socket2::Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if matches!(target.ip(), IpAddr::V4(ip) if ip.is_loopback()) {
            let last = 2 + (self.dialled % SOURCES) as u8;
            self.dialled = self.dialled.wrapping_add(1);
            socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
        }
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let stream = mio::net::TcpStream::from_std(socket.into());
        let tls = match &self.tls {
            Some((config, name)) => {
                let connection = ClientConnection::new(config.clone(), name.clone());
                let mut connection = connection.map_err(io::Error::other)?;
                connection.set_buffer_limit(None);
                Some(Box::new(connection))
            }
            None => None,
        };
        Ok(Transport { stream, tls, unsent: Vec::new() })
    }
}

/// A connected, or connecting, socket.
pub(crate) struct Transport {
    pub stream: mio::net::TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Bytes as they go on the wire that the kernel had no room for.
    unsent: Vec<u8>,
}

/// What one read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A full buffer: the socket may hold more.
    More,
    /// Less than a full buffer, so the socket is empty; the next bytes make it ready again.
    Some,
    /// Nothing.
    Drained,
    /// The server closed.
    Closed,
}

impl Transport {
    /// Reads once, appending what the server said to `plain`. `wire` is scratch space.
    pub(crate) fn read(&mut self, wire: &mut [u8], plain: &mut Vec<u8>) -> io::Result<Progress> {
        let count = match self.stream.read(wire) {
            Ok(0) => return Ok(Progress::Closed),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Drained),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Progress::More),
            Err(error) => return Err(error),
        };
        match &mut self.tls {
            None => plain.extend_from_slice(&wire[..count]),
            Some(tls) => decrypt(tls, &wire[..count], plain)?,
        }
        Ok(if count < wire.len() { Progress::Some } else { Progress::More })
    }

    /// Sends `plain` behind what is still unsent, with at most one write.
    pub(crate) fn write(&mut self, plain: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            if self.unsent.is_empty() {
                let sent = write_once(&mut self.stream, plain)?;
                self.unsent.extend_from_slice(&plain[sent..]);
            } else {
                self.unsent.extend_from_slice(plain);
            }
            return Ok(());
        };
        tls.writer().write_all(plain)?;
        let waiting = !self.unsent.is_empty();
        while tls.wants_write() {
            tls.write_tls(&mut self.unsent)?;
        }
        // Bytes that wait for room are followed up when the socket is writable.
        if waiting { Ok(()) } else { self.flush() }
    }

    /// Goes on with what is unsent; called when the socket has room again.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if !self.unsent.is_empty() {
            let sent = write_once(&mut self.stream, &self.unsent)?;
            self.unsent.drain(..sent);
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
            }
        }
        Ok(())
    }

    /// Queues the first bytes of a connection that is not connected yet.
    pub(crate) fn prepare(&mut self, plain: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.unsent.extend_from_slice(plain),
            Some(tls) => {
                tls.writer().write_all(plain)?;
                tls.write_tls(&mut self.unsent)?;
            }
        }
        Ok(())
    }

    pub(crate) fn all_sent(&self) -> bool {
        self.unsent.is_empty()
    }
}

fn write_once(stream: &mut mio::net::TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Ok(sent) => Ok(sent),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

fn decrypt(tls: &mut ClientConnection, mut wire: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    while !wire.is_empty() {
        tls.read_tls(&mut wire)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let wanted = state.plaintext_bytes_to_read();
        let start = plain.len();
        plain.resize(start + wanted, 0);
        tls.reader().read_exact(&mut plain[start..])?;
    }
    Ok(())
}

/// TLS that believes any certificate: a load client meets self-signed ones. Sessions are not
/// resumed, so that every login pays for a whole handshake.
fn unverified_tls() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(schemes)))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyCertificate(Vec<SignatureScheme>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
