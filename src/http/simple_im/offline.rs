//! Messages for those who are away, as the later clients fetch them besides the socket.
//!
//! Reading removes nothing; clearing removes what the same token has read, so that a message that
//! came in between is not lost. What a client acknowledges on its socket goes by itself.

use std::sync::LazyLock;

use axum::extract::State;
use codec::simple_im::{Dialect, write_message};
use flate2::{Compress, Compression, FlushCompress};
use storage::Row;

use super::answer::Answer;
use super::{Face, Form, Holder, Said, token_bytes};

/// `GET /offline`, with the token as a cookie: the packets, newest first, compressed (RFC 1951,
/// without any header) unless the configuration says that clients read them as they are.
pub(super) async fn read(State(face): State<Face>, holder: Holder) -> Said {
    match face.0.settings.deflate {
        true => answer(&face, holder, Dialect::Device, deflated).await,
        false => answer(&face, holder, Dialect::Flat, <[u8]>::to_vec).await,
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
        None => answer(&face, by_body(&face, &form).await?, Dialect::Nested, <[u8]>::to_vec).await,
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

async fn answer(face: &Face, holder: Holder, dialect: Dialect, form: fn(&[u8]) -> Vec<u8>) -> Said {
    let packets = packets(face, holder, dialect, form).await?;
    Ok(Answer::double(0).raw(b"\r\n").raw(&packets))
}

/// The oldest stored messages, as many as one answer holds, as `form` makes them.
async fn packets(
    face: &Face,
    holder: Holder,
    dialect: Dialect,
    form: fn(&[u8]) -> Vec<u8>,
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
        let seqs: Box<[u64]> = rows.iter().map(|row| row.seq).collect();
        Ok((seqs, form(&written(&rows, dialect))))
    });
    let (seqs, formed) = read.await?;
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

/// Compressed, without a line end: clients cut the answer there. A piece whose output has one is
/// halved; a small one is cut within its own line ends, and at last goes byte by byte: single bytes
/// have none. Each piece ends in FF, so that nothing begins between two.
fn deflated(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut deflate) = (Vec::new(), Deflate::new());
    let mut pieces: Vec<&[u8]> = bytes.chunks(PIECE_BYTES).rev().collect();
    while let Some(piece) = pieces.pop() {
        let formed = deflate.piece(piece);
        if !has_line_end(&formed) {
            out.extend(formed);
        } else if piece.len() > SMALL_PIECE_BYTES {
            let (first, second) = piece.split_at(piece.len() / 2);
            pieces.extend([second, first]);
        } else if let Some(end) = piece.windows(2).position(|pair| pair == LINE_END) {
            // Short texts are stored as they are.
            let (first, second) = piece.split_at(end + 1);
            pieces.extend([second, first]);
        } else {
            piece.iter().for_each(|byte| out.extend(&SINGLE_BYTES[usize::from(*byte)]));
        }
    }
    out.extend(LAST_BLOCK);
    out
}

/// What each byte alone becomes.
static SINGLE_BYTES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut deflate = Deflate::new();
    (0..=u8::MAX).map(|byte| deflate.piece(&[byte])).collect()
});

/// One compressor for all pieces, whose tables are large.
struct Deflate(Compress);

impl Deflate {
    fn new() -> Self {
        Self(Compress::new(Compression::best(), false))
    }

    /// Blocks of which none is the last, flushed: behind them comes 00 00 FF FF. At most
    /// [`PIECE_BYTES`], whose output fits into what is reserved at once.
    fn piece(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 * bytes.len() + 64);
        self.0.reset();
        let done = self.0.compress_vec(bytes, &mut out, FlushCompress::Sync);
        let whole = self.0.total_in() == bytes.len() as u64 && out.ends_with(&FLUSHED);
        assert!(done.is_ok() && whole, "memory takes every byte");
        out
    }
}

fn has_line_end(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == LINE_END)
}

/// Packets of one answer; the rest comes with the next one, or on the socket.
const ROWS_MAX: u32 = 1000;
/// Tokens that have read and not cleared: 8 MB of numbers at most.
const READERS_MAX: usize = 1_000;
/// Of packets before they are compressed; a larger one goes alone.
const ANSWER_BYTES: usize = 32 * 1024;
/// What a packet adds to its text.
const PACKET_OVERHEAD: usize = 256;
/// Of what is compressed at a time: one block.
const PIECE_BYTES: usize = 16 * 1024;
/// What is not halved any more.
const SMALL_PIECE_BYTES: usize = 512;
const LINE_END: &[u8; 2] = b"\r\n";
/// The end of a piece.
const FLUSHED: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// An empty block, said to be the last.
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::DeflateDecoder;

    use super::*;

    #[test]
    fn no_single_byte_makes_a_line_end() {
        for (byte, formed) in SINGLE_BYTES.iter().enumerate() {
            assert!(!has_line_end(formed), "{byte}: {formed:02x?}");
        }
    }

    /// Goal: whatever is in an answer, it has no line end and says the same. Method: letters at
    /// random, words, any bytes, line ends and nothing, around the sizes of pieces and blocks.
    #[test]
    fn answers_of_every_length_have_no_line_end_and_say_the_same() {
        let mut seed = 7_u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 40) as u8
        };
        let letters: Vec<u8> = (0..200_000).map(|_| random() % 58 + b'A').collect();
        let words = b"what was said, and said again\r\n".repeat(7_000);
        let any: Vec<u8> = (0..70_000).map(|_| random()).collect();
        let ends: Vec<u8> = (0..70_000).flat_map(|_| [b'\r', b'\n', random()]).collect();
        for bytes in [&letters, &words, &any, &ends] {
            let lengths = (0..70).chain(PIECE_BYTES - 300..PIECE_BYTES + 300).step_by(7);
            for len in lengths.chain([31_744, 63_747, 65_535, bytes.len()]) {
                let formed = deflated(&bytes[..len]);
                assert!(!has_line_end(&formed), "{len}");
                let mut inflated = Vec::new();
                let mut decoder = DeflateDecoder::new(&formed[..]);
                decoder.read_to_end(&mut inflated).expect("it is whole");
                assert!(inflated == bytes[..len], "{len}");
            }
        }
        assert_eq!(deflated(b""), LAST_BLOCK);
        let short = &letters[..150];
        assert!(deflated(&[short, b"\r\n"].concat()).len() < 180, "it does not grow much");
    }
}
