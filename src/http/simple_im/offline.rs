//! Messages for those who are away, as the later clients fetch them besides the socket.
//!
//! Reading removes nothing; clearing removes what the same token has read, so that a message that
//! came in between is not lost. What a client acknowledges on its socket goes by itself.

use std::io::Write as _;

use axum::extract::State;
use codec::simple_im::{Dialect, write_message};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use storage::Row;

use super::answer::Answer;
use super::{Face, Form, Holder, Said, token_bytes};

/// `GET /offline`, with the token as a cookie: the packets, newest first, compressed (RFC 1951,
/// without any header) unless the configuration says that clients read them as they are.
pub(super) async fn read(State(face): State<Face>, holder: Holder) -> Said {
    match face.0.settings.deflate {
        true => answer(&face, holder, Dialect::Device, deflated).await,
        false => answer(&face, holder, Dialect::Flat, plain).await,
    }
}

/// `POST /offline`, `POST /offline/get`: the same to a cookie; to the clients before cookies, whose
/// token is in the body, the packets as they are.
pub(super) async fn read_by_post(
    State(face): State<Face>,
    holder: Option<Holder>,
    form: Form,
) -> Said {
    match holder {
        Some(holder) => read(State(face), holder).await,
        None => answer(&face, by_body(&face, &form).await?, Dialect::Nested, plain).await,
    }
}

async fn by_body(face: &Face, form: &Form) -> Result<Holder, Answer> {
    let holder = face.holder_of(form.get("token").map(token_bytes).unwrap_or_default()).await?;
    holder.ok_or_else(|| Answer::double(1).text("r", b"Token error"))
}

/// `DELETE /offline`, with the token as a cookie: forgets what was read.
pub(super) async fn clear(State(face): State<Face>, holder: Holder) -> Said {
    let Holder { token, record } = holder;
    let read = face.read().remove(&token);
    if let Some(seqs) = read {
        face.call(move |accounts| accounts.offline_clear(record.user, &seqs)).await?;
    }
    Ok(Answer::double(0))
}

/// `POST /offline/clean`: the same, with the token as a cookie or in the body.
pub(super) async fn clear_by_post(
    State(face): State<Face>,
    holder: Option<Holder>,
    form: Form,
) -> Said {
    let holder = match holder {
        Some(holder) => holder,
        None => by_body(&face, &form).await?,
    };
    clear(State(face), holder).await
}

async fn answer(
    face: &Face,
    holder: Holder,
    dialect: Dialect,
    form: fn(&[u8]) -> Option<Vec<u8>>,
) -> Said {
    let packets = packets(face, holder, dialect, form).await?;
    Ok(Answer::double(0).raw(b"\r\n").raw(&packets))
}

/// The oldest stored messages as `form` makes them: fewer of them where it cannot make all.
async fn packets(
    face: &Face,
    holder: Holder,
    dialect: Dialect,
    form: fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<u8>, Answer> {
    let user = holder.record.user;
    let read = face.call(move |accounts| {
        let (mut rows, _) = accounts.offline_read(user, ROWS_MAX)?;
        let mut bytes = 0;
        let fitting = rows.iter().take_while(|row| {
            bytes += row.message.body.len() + PACKET_OVERHEAD;
            bytes <= ANSWER_BYTES
        });
        let fitting = fitting.count().max(1);
        rows.truncate(fitting);
        let mut formed = form(&written(&rows, dialect));
        while formed.is_none() && rows.len() > 1 {
            rows.truncate(rows.len() / 2);
            formed = form(&written(&rows, dialect));
        }
        Ok((rows.iter().map(|row| row.seq).collect::<Box<[u64]>>(), formed))
    });
    let (seqs, formed) = read.await?;
    let formed = formed.ok_or_else(Answer::unavailable)?;
    if !seqs.is_empty() {
        let mut read = face.read();
        if read.len() >= READERS_MAX {
            // Who cleared nothing so far reads again.
            read.clear();
        }
        read.insert(holder.token, seqs);
    }
    Ok(formed)
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

fn plain(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(bytes.into())
}

/// Compressed, at the first level whose output holds no line end: clients cut the answer there.
/// `None`: there is none.
fn deflated(bytes: &[u8]) -> Option<Vec<u8>> {
    let clean = |out: &Vec<u8>| !out.windows(2).any(|pair| pair == b"\r\n");
    // Blanks are nothing between packets, and change every byte that comes out.
    let padded = (0..BLANKS_MAX).map(|blanks| [bytes, &vec![b' '; blanks]].concat());
    let tries =
        padded.flat_map(|bytes| [9, 6, 1].map(|level| deflate(&bytes, Compression::new(level))));
    tries.into_iter().find(clean)
}

fn deflate(bytes: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes every byte")
}

/// Packets of one answer; the rest comes with the next one, or on the socket.
const ROWS_MAX: u32 = 1000;
/// Tokens that have read and not cleared: 8 MB of numbers at most.
const READERS_MAX: usize = 1_000;
/// Of packets before they are compressed; a larger one goes alone. What comes out has a line end by
/// chance only once in some 64 KiB.
const ANSWER_BYTES: usize = 32 * 1024;
/// What a packet adds to its text.
const PACKET_OVERHEAD: usize = 256;
const BLANKS_MAX: usize = 4;
