//! TLS on a connection, sans-io: ciphertext in, plaintext out, and the reverse.
//!
//! Owns: one rustls connection. Never: sockets; certificates (the configuration brings them).

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use crate::io::SendBatch;

/// The server's side of a TLS connection.
pub(crate) struct Tls {
    connection: ServerConnection,
    /// close_notify has been queued.
    closed: bool,
}

/// The peer's TLS is broken; an alert may be waiting in the output.
#[derive(Debug)]
pub(crate) struct TlsFailed;

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("handshaking", &self.is_handshaking()).finish()
    }
}

impl Tls {
    pub(crate) fn new(config: &Arc<ServerConfig>) -> Result<Self, TlsFailed> {
        let mut connection = ServerConnection::new(Arc::clone(config)).map_err(|_| TlsFailed)?;
        // What is written leaves in the same turn; the shard bounds what it queues.
        connection.set_buffer_limit(None);
        Ok(Self { connection, closed: false })
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Takes ciphertext and appends the plaintext in it to `plain`. `true`: the peer has closed
    /// its side. Answers wait until [`Self::seal`].
    pub(crate) fn open(
        &mut self,
        mut cipher: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<bool, TlsFailed> {
        let mut closed = false;
        while !cipher.is_empty() {
            let taken = self.connection.read_tls(&mut cipher).map_err(|_| TlsFailed)?;
            let state = self.connection.process_new_packets().map_err(|_| TlsFailed)?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.connection.reader().read_exact(&mut plain[start..]).map_err(|_| TlsFailed)?;
            closed |= state.peer_has_closed();
            if taken == 0 {
                break;
            }
        }
        Ok(closed)
    }

    /// There is output besides what the shard queued: handshake answers, tickets, alerts.
    pub(crate) fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    /// Appends to `cipher` what TLS itself has to say, and `plain` encrypted.
    pub(crate) fn seal(
        &mut self,
        plain: Option<&SendBatch>,
        cipher: &mut Vec<u8>,
    ) -> Result<(), TlsFailed> {
        for piece in plain.iter().flat_map(|batch| &batch.pieces) {
            self.connection.writer().write_all(piece.bytes()).map_err(|_| TlsFailed)?;
        }
        while self.connection.wants_write() {
            self.connection.write_tls(cipher).map_err(|_| TlsFailed)?;
        }
        Ok(())
    }

    /// The notice that nothing more will be sent is still to be given.
    pub(crate) fn may_close(&self) -> bool {
        !self.closed && !self.is_handshaking()
    }

    /// Appends that notice, once. Nothing can be sealed after it.
    pub(crate) fn close(&mut self, cipher: &mut Vec<u8>) -> Result<(), TlsFailed> {
        if self.may_close() {
            self.closed = true;
            self.connection.send_close_notify();
        }
        self.seal(None, cipher)
    }
}
