//! A client of HTTP that sends what a test says and hides nothing of the answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::PATIENCE;

/// A request; the defaults have no body and no header but what HTTP wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// Lines, each with its end.
    pub(crate) headers: &'a str,
    pub(crate) body: &'a str,
}

impl<'a> Ask<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self { method: "GET", path, headers: "", body: "" }
    }

    /// A body without a content type.
    pub(crate) fn post(path: &'a str, body: &'a str) -> Self {
        Self { method: "POST", path, headers: "", body }
    }

    pub(crate) fn with(self, headers: &'a str) -> Self {
        Self { headers, ..self }
    }

    /// The answer; `None`: nobody answers.
    pub(crate) fn try_send(&self, to: SocketAddr) -> Option<Told> {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let Self { method, path, headers, body } = self;
        let length = match body.len() {
            0 => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
        let request = format!("{head}{headers}{length}\r\n{body}");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|end| end == b"\r\n\r\n")?;
        let head = String::from_utf8(answer[..end].to_vec()).ok()?;
        Some(Told { head, body: answer.split_off(end + 4) })
    }

    #[track_caller]
    pub(crate) fn send(&self, to: SocketAddr) -> Told {
        self.try_send(to).expect("an answer")
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// Without the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Told {
    pub(crate) fn status(&self) -> Option<u16> {
        self.head.split(' ').nth(1)?.parse().ok()
    }

    /// The first line.
    pub(crate) fn status_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub(crate) fn has_header(&self, name: &str) -> bool {
        let mut names = self.head.lines().skip(1).filter_map(|line| line.split(':').next());
        names.any(|known| known.eq_ignore_ascii_case(name))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What stands in quotes behind ` key = `.
    #[track_caller]
    pub(crate) fn quoted(&self, key: &str) -> String {
        let text = self.text();
        let start = format!(" {key} = \"");
        let value = text.split_once(&start).and_then(|(_, rest)| rest.split_once('"'));
        value.unwrap_or_else(|| panic!("no {key} in {text:?}")).0.to_owned()
    }
}
