//! The text of the answers.
//!
//! ```text
//!   [response] status = 0 server = "10.0.0.1" port = "1987" [response.user] token = ".." id = 5
//!   [[response]] status = 1 reason = "Token error"
//! ```
//!
//! Early clients read single brackets, later ones double brackets and nothing else. Answers have no
//! type and end without a line end, as the original's.
//!
//! Owns: these forms, and that no text can end its own quotes. Never: what is answered.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use storage::StoreError;

/// An answer being put together.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    text: Vec<u8>,
}

impl Answer {
    /// `[response] status = N`
    pub(super) fn single(status: u32) -> Self {
        Self::new(format!("[response] status = {status}"))
    }

    /// `[[response]] status = N`
    pub(super) fn double(status: u32) -> Self {
        Self::new(format!("[[response]] status = {status}"))
    }

    /// In the brackets of the asking client's revision.
    pub(super) fn of(double: bool, status: u32) -> Self {
        if double { Self::double(status) } else { Self::single(status) }
    }

    fn new(text: String) -> Self {
        Self { status: StatusCode::OK, text: text.into_bytes() }
    }

    /// A status without a text.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, text: Vec::new() }
    }

    /// The store is down: no verdict.
    pub(super) fn unavailable() -> Self {
        Self::empty(StatusCode::SERVICE_UNAVAILABLE)
    }

    /// Where the original's handler crashed.
    pub(super) fn crash() -> Self {
        Self::empty(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn not_found(mut self) -> Self {
        self.status = StatusCode::NOT_FOUND;
        self
    }

    pub(super) fn reason(self, reason: &str) -> Self {
        self.text("reason", reason.as_bytes())
    }

    /// ` key = "text"`. Those who read it know no escapes: a quote in it becomes another.
    pub(super) fn text(mut self, key: &str, text: &[u8]) -> Self {
        self.text.extend(format!(" {key} = \"").into_bytes());
        self.text.extend(text.iter().map(|byte| match byte {
            b'"' => b'\'',
            byte if byte.is_ascii_control() => b' ',
            byte => *byte,
        }));
        self.text.push(b'"');
        self
    }

    pub(super) fn number(mut self, key: &str, number: u64) -> Self {
        self.text.extend(format!(" {key} = {number}").into_bytes());
        self
    }

    /// Begins another table: ` [response.user]` behind the first, or a line of its own.
    pub(super) fn table(mut self, header: &str) -> Self {
        self.text.extend_from_slice(header.as_bytes());
        self
    }

    /// Bytes as they are.
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.text.extend_from_slice(bytes);
        self
    }
}

impl From<StoreError> for Answer {
    fn from(_: StoreError) -> Self {
        Self::unavailable()
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        // Not by axum's text types: those would name a content type.
        let mut response = Response::new(Body::from(self.text));
        *response.status_mut() = self.status;
        response
    }
}
