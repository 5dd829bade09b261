//! The certificate of the tls and wss listeners.
//!
//! Owns: reading PEM files, making a self-signed certificate on first start, and the TLS rules of
//! the gateway (versions, resumption, ALPN). Never: connections. A reload is a second [`load`]:
//! if it fails, the caller goes on with the context it has.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;

use crate::config::Certificate;

/// Why there is no TLS context. Names the file; never holds key material.
#[derive(Debug)]
pub(crate) struct TlsError {
    file: PathBuf,
    text: String,
}

impl TlsError {
    fn new(file: &Path, text: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), text: text.to_string() }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.text)
    }
}

impl std::error::Error for TlsError {}

/// Reads the certificate, making it first if it is to be self-signed and is not there yet.
///
/// # Errors
/// Files that cannot be read or written, that are not PEM, or that do not belong together.
pub(crate) fn load(certificate: &Certificate) -> Result<Arc<ServerConfig>, TlsError> {
    match certificate {
        Certificate::Files { cert, key } => context(cert, key),
        Certificate::SelfSigned { folder } => {
            let (cert, key) = (folder.join(SELF_SIGNED_CERT), folder.join(SELF_SIGNED_KEY));
            if !cert.exists() || !key.exists() {
                make_self_signed(folder, &cert, &key)?;
                tracing::info!(cert = %cert.display(), "made a self-signed certificate");
            }
            context(&cert, &key)
        }
    }
}

fn context(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| TlsError::new(cert, format!("no certificate: {error}")))?;
    if chain.is_empty() {
        return Err(TlsError::new(cert, "holds no certificate in PEM form"));
    }
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| TlsError::new(key, format!("no private key: {error}")))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::new(cert, error))?
        .with_no_client_auth()
        // One certificate for every name, and for clients that name none.
        .with_single_cert(chain, private)
        .map_err(|error| TlsError::new(cert, format!("cannot be used: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Resumption without memory: the client keeps the ticket, we keep only its key.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new().map_err(|error| TlsError::new(cert, error))?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// The key is written before the certificate, so that a certificate never stands without its key.
fn make_self_signed(folder: &Path, cert: &Path, key: &Path) -> Result<(), TlsError> {
    let (made, private) = self_signed().map_err(|error| TlsError::new(cert, error))?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| TlsError::new(folder, error))?;
    write(key, 0o600, &private.serialize_pem()).map_err(|error| TlsError::new(key, error))?;
    write(cert, 0o644, &made.pem()).map_err(|error| TlsError::new(cert, error))
}

fn self_signed() -> Result<(rcgen::Certificate, rcgen::KeyPair), rcgen::Error> {
    let mut params = rcgen::CertificateParams::new(NAMES.map(str::to_owned))?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "Ringpost self-signed");
    let private = rcgen::KeyPair::generate()?;
    Ok((params.self_signed(&private)?, private))
}

/// Whole or not at all: a new file takes the place of an old one only when it is on disk.
fn write(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

const SELF_SIGNED_CERT: &str = "self-signed.pem";
const SELF_SIGNED_KEY: &str = "self-signed.key";

/// What the self-signed certificate is good for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    use super::*;

    /// Runs a handshake in memory; the client trusts only `cert` and asks for `name`.
    fn handshake(server: &Arc<ServerConfig>, cert: &Path, name: &str) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_file(cert).expect("a certificate");
        roots.add(der).expect("a root");
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
        let mut server = ServerConnection::new(Arc::clone(server)).expect("a server");
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).expect("memory");
            }
            server.read_tls(&mut wire.as_slice()).expect("memory");
            server.process_new_packets().map_err(|error| error.to_string())?;
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).expect("memory");
            }
            client.read_tls(&mut wire.as_slice()).expect("memory");
            client.process_new_packets().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn self_signed(folder: &Path) -> Certificate {
        Certificate::SelfSigned { folder: folder.to_owned() }
    }

    #[test]
    fn the_self_signed_certificate_serves_its_names_and_clients_without_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("made/on/the/way");
        let server = load(&self_signed(&data)).expect("made");
        let cert = data.join(SELF_SIGNED_CERT);
        for name in ["localhost", "127.0.0.1", "::1"] {
            handshake(&server, &cert, name).expect(name);
        }
        handshake(&server, &cert, "example.org").expect_err("another name");
    }

    #[test]
    fn the_key_is_for_its_owner_only_and_the_second_start_keeps_it() {
        let folder = tempfile::tempdir().expect("a folder");
        load(&self_signed(folder.path())).expect("made");
        let key = folder.path().join(SELF_SIGNED_KEY);
        let mode = fs::metadata(&key).expect("the key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let first = fs::read(&key).expect("the key");
        load(&self_signed(folder.path())).expect("found");
        assert_eq!(first, fs::read(&key).expect("the key"));
    }

    #[test]
    fn a_lost_half_of_the_pair_is_replaced_by_a_pair_that_fits() {
        let folder = tempfile::tempdir().expect("a folder");
        for lost in [SELF_SIGNED_KEY, SELF_SIGNED_CERT] {
            load(&self_signed(folder.path())).expect("made");
            fs::remove_file(folder.path().join(lost)).expect("was there");
            let server = load(&self_signed(folder.path())).expect("made again");
            handshake(&server, &folder.path().join(SELF_SIGNED_CERT), "localhost").expect("fits");
        }
    }

    #[test]
    fn bad_files_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let other = tempfile::tempdir().expect("a folder");
        load(&self_signed(folder.path())).expect("made");
        load(&self_signed(other.path())).expect("made");
        let cert = folder.path().join(SELF_SIGNED_CERT);
        let wrong = |cert: &Path, key: &Path| {
            let files = Certificate::Files { cert: cert.to_owned(), key: key.to_owned() };
            load(&files).expect_err("bad files").to_string()
        };
        let missing = folder.path().join("missing.pem");
        assert!(wrong(&missing, &missing).contains("missing.pem: no certificate: "));
        assert!(wrong(&cert, &missing).contains("missing.pem: no private key: "));
        let key = other.path().join(SELF_SIGNED_KEY);
        assert!(wrong(&cert, &key).contains("self-signed.pem: cannot be used: "));
        assert!(wrong(&key, &key).contains("self-signed.key: holds no certificate"));
    }
}
