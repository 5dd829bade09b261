//! TLS on a connection, sans-io: ciphertext in, plaintext out, and the reverse.
//!
//! Owns: one rustls connection, and the part of a record that has come. Records are decrypted where
//! they were received; an idle connection holds no buffer:
//!
//! ```text
//!   received | record | record | rec        seal:  answers | what the turn queued, one record
//!                |        |       '-> spill, until ord] has come
//!                '-> plain <'
//! ```
//!
//! Never: sockets; certificates (the configuration brings them).

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};

use crate::io::SendBatch;
use crate::limits::{TLS_PLAIN_BYTES, TLS_RECORD_BYTES, TLS_RECORD_OVERHEAD};

/// The server's side of a TLS connection.
pub(crate) struct Tls {
    connection: UnbufferedServerConnection,
    /// The head of a record, or of a handshake message in several. Allocated only meanwhile.
    spill: Vec<u8>,
    /// What TLS itself has to say: handshake, tickets, alerts. Likewise.
    answers: Vec<u8>,
    /// close_notify or a fatal alert has been given: nothing is sealed after it.
    over: bool,
    /// The peer's records can no longer be read.
    broken: bool,
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
        let connection =
            UnbufferedServerConnection::new(Arc::clone(config)).map_err(|_| TlsFailed)?;
        let (spill, answers) = (Vec::new(), Vec::new());
        Ok(Self { connection, spill, answers, over: false, broken: false })
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Takes ciphertext, decrypts it in place and appends the plaintext in it to `plain`. `true`:
    /// the peer has closed its side. Answers wait until [`Self::seal`].
    ///
    /// # Errors
    /// The peer's TLS is broken, now or before; what was whole ahead of that is in `plain`.
    pub(crate) fn open(
        &mut self,
        cipher: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<bool, TlsFailed> {
        if self.broken {
            return Err(TlsFailed);
        }
        let opened = if self.spill.is_empty() {
            let opened = self.process(cipher, plain);
            if let Ok(Opened { consumed, .. }) = opened {
                self.spill.extend_from_slice(&cipher[consumed..]);
            }
            opened
        } else {
            let mut spill = std::mem::take(&mut self.spill);
            spill.extend_from_slice(cipher);
            let opened = self.process(&mut spill, plain);
            if let Ok(Opened { consumed, .. }) = opened
                && consumed < spill.len()
            {
                spill.drain(..consumed);
                self.spill = spill;
            }
            opened
        };
        match opened {
            Ok(Opened { closed, .. }) if self.spill.len() <= TLS_RECORD_BYTES => Ok(closed),
            _ => {
                (self.over, self.broken) = (true, true);
                self.spill = Vec::new();
                Err(TlsFailed)
            }
        }
    }

    /// Every whole record in `bytes`, and the answers to them.
    fn process(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<Opened, TlsFailed> {
        let (mut consumed, mut closed) = (0, false);
        loop {
            let rest = &mut bytes[consumed..];
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(rest);
            let done = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(|_| TlsFailed)?;
                        plain.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(answer)) => {
                    encode(answer, &mut self.answers)?;
                    false
                }
                Ok(ConnectionState::TransmitTlsData(answers)) => {
                    answers.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    closed = true;
                    false
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => true,
                Ok(ConnectionState::Closed) => true,
                // Early data is not offered; nothing else is known.
                Ok(_) => return Err(TlsFailed),
                Err(_) => {
                    // Nothing may follow our close_notify.
                    if !self.over {
                        self.take_alerts();
                    }
                    return Err(TlsFailed);
                }
            };
            consumed += discard;
            if done {
                // What follows close_notify is not for us.
                let consumed = if closed { bytes.len() } else { consumed };
                return Ok(Opened { consumed, closed });
            }
        }
    }

    /// The alerts a failure has left: what waits to be sent comes before what is to be read.
    fn take_alerts(&mut self) {
        while self.connection.wants_write() {
            match self.connection.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(alert)) => {
                    if encode(alert, &mut self.answers).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// There is output besides what the shard queued: handshake answers, tickets, alerts.
    /// A record has come in part.
    pub(crate) fn is_midway(&self) -> bool {
        !self.spill.is_empty()
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Appends to `cipher` what TLS itself has to say, and `plain` encrypted: each piece in as few
    /// records as hold it. After the last word of TLS, `plain` goes nowhere.
    ///
    /// # Errors
    /// Nothing can be encrypted: the handshake is not complete, or the keys are used up.
    pub(crate) fn seal(
        &mut self,
        plain: Option<&SendBatch>,
        cipher: &mut Vec<u8>,
    ) -> Result<(), TlsFailed> {
        cipher.append(&mut std::mem::take(&mut self.answers));
        if self.over {
            return Ok(());
        }
        for piece in plain.iter().flat_map(|batch| batch.pieces.iter()) {
            let bytes = piece.bytes();
            let records = bytes.len().div_ceil(TLS_PLAIN_BYTES);
            let room = bytes.len() + records * TLS_RECORD_OVERHEAD;
            let mut traffic = self.write_traffic()?;
            append(cipher, room, |room| traffic.encrypt(bytes, room).map_err(required))?;
        }
        Ok(())
    }

    /// The notice that nothing more will be sent is still to be given.
    pub(crate) fn may_close(&self) -> bool {
        !self.over && !self.is_handshaking()
    }

    /// Appends that notice, once. Nothing can be sealed after it.
    pub(crate) fn close(&mut self, cipher: &mut Vec<u8>) -> Result<(), TlsFailed> {
        if !self.may_close() {
            return Ok(());
        }
        self.over = true;
        let mut traffic = self.write_traffic()?;
        append(cipher, TLS_RECORD_OVERHEAD, |room| {
            traffic.queue_close_notify(room).map_err(required)
        })
    }

    fn write_traffic(&mut self) -> Result<WriteTraffic<'_, ServerConnectionData>, TlsFailed> {
        match self.connection.process_tls_records(&mut self.spill).state {
            Ok(ConnectionState::WriteTraffic(traffic)) => Ok(traffic),
            _ => Err(TlsFailed),
        }
    }
}

/// What [`Tls::process`] has done.
struct Opened {
    /// Bytes that are done with; the others are the head of a record.
    consumed: usize,
    /// The peer has sent its close_notify.
    closed: bool,
}

fn encode(
    mut answer: EncodeTlsData<'_, ServerConnectionData>,
    out: &mut Vec<u8>,
) -> Result<(), TlsFailed> {
    append(out, 0, |room| {
        answer.encode(room).map_err(|error| match error {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        })
    })
}

fn required(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(size) => Some(size.required_size),
        EncryptError::EncryptExhausted => None,
    }
}

/// Appends what `write` puts into `room` bytes, or into as many as it says it needs.
fn append(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), TlsFailed> {
    let start = out.len();
    loop {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(Some(required)) if required > room => room = required,
            Err(_) => {
                out.truncate(start);
                return Err(TlsFailed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
