//! Messages for those who are away, as the later clients fetch them besides the socket.
//!
//! Reading removes nothing; clearing removes what the same token has read, so that a message that
//! came in between is not lost. What a client acknowledges on its socket goes by itself.

use std::io::Write as _;
use std::sync::PoisonError;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use codec::simple_im::{Dialect, write_message};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use storage::Row;

use super::answer::Answer;
use super::{Face, Form, Holder, said, token_bytes};

/// `GET /offline`, `POST /offline/get`, with the token as a cookie: the packets, newest first,
/// compressed (RFC 1951, without any header).
pub(super) async fn read(State(face): State<Face>, headers: HeaderMap) -> Response {
    said(
        async {
            let holder = face.holder(&headers).await?;
            let packets = packets(&face, holder, Dialect::Device).await?;
            Ok(Answer::double(0).raw(b"\r\n").raw(&deflated(&packets)))
        }
        .await,
    )
}

/// `POST /offline token`: the same as they are.
pub(super) async fn read_by_body(State(face): State<Face>, body: Bytes) -> Response {
    let form = Form::of(&body);
    let token = form.get("token").map(token_bytes).unwrap_or_default();
    said(
        async {
            let holder = face.holder_of(token).await;
            let holder = holder.map_err(|_| Answer::double(1).text("r", b"Token error"))?;
            let packets = packets(&face, holder, Dialect::Nested).await?;
            Ok(Answer::double(0).raw(b"\r\n").raw(&packets))
        }
        .await,
    )
}

/// `DELETE /offline`, `POST /offline/clean`: forgets what was read.
pub(super) async fn clear(State(face): State<Face>, headers: HeaderMap) -> Response {
    said(
        async {
            let Holder { token, record } = face.holder(&headers).await?;
            let read =
                face.0.read_up_to.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
            if let Some(seq) = read {
                let cleared = face.call(move |accounts| accounts.offline_clear(record.user, seq));
                cleared.await.map_err(|_| Answer::unavailable())?;
            }
            Ok(Answer::double(0))
        }
        .await,
    )
}

async fn packets(face: &Face, holder: Holder, dialect: Dialect) -> Result<Vec<u8>, Answer> {
    let user = holder.record.user;
    let read = face.call(move |accounts| accounts.offline_read(user, ROWS_MAX)).await;
    let (rows, _) = read.map_err(|_| Answer::unavailable())?;
    if let Some(last) = rows.last() {
        let mut read = face.0.read_up_to.lock().unwrap_or_else(PoisonError::into_inner);
        if read.len() >= READERS_MAX {
            // Who cleared nothing so far reads again.
            read.clear();
        }
        read.insert(holder.token, last.seq);
    }
    Ok(written(&rows, dialect))
}

/// The clients' parser turns the order around.
fn written(rows: &[Row], dialect: Dialect) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows.iter().rev() {
        write_message(dialect, &row.message, &mut out);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Compressed, at the first level whose output holds no line end: clients cut the answer there.
fn deflated(bytes: &[u8]) -> Vec<u8> {
    let levels = (1..=9).rev().map(Compression::new);
    let tries = levels.map(|level| deflate(bytes, level));
    let clean = |out: &Vec<u8>| !out.windows(2).any(|pair| pair == b"\r\n");
    let mut last = Vec::new();
    for out in tries {
        if clean(&out) {
            return out;
        }
        last = out;
    }
    // Blanks are nothing between packets; so many of them at the end change every later byte.
    (1..BLANKS_MAX)
        .map(|blanks| deflate(&[bytes, &vec![b' '; blanks]].concat(), Compression::best()))
        .find(clean)
        .unwrap_or(last)
}

fn deflate(bytes: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes every byte")
}

/// Packets of one answer; the rest comes with the next one, or on the socket.
const ROWS_MAX: u32 = 1000;
/// Tokens that have read and not cleared.
const READERS_MAX: usize = 10_000;
const BLANKS_MAX: usize = 64;
