//! The HTTP answers to requests that are no proper upgrade.

/// Why an upgrade request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpRefusal {
    /// Not HTTP.
    Malformed,
    /// The Host header is missing or there twice.
    Host,
    /// The request has a body.
    Body,
    /// The Sec-WebSocket-Key is missing, there twice, or not 16 bytes of base64.
    Key,
    /// None of the accepted paths.
    Path,
    /// Not a GET.
    Method,
    /// A plain HTTP request: no `Upgrade: websocket` or no `Connection: Upgrade`.
    NotUpgrade,
    /// A Sec-WebSocket-Version other than 13.
    Version,
    /// Over [`super::HEAD_MAX`] bytes or [`super::HEADERS_MAX`] header lines.
    HeadTooLarge,
    /// Not HTTP/1.1.
    HttpVersion,
}

impl HttpRefusal {
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::Host,
        Self::Body,
        Self::Key,
        Self::Path,
        Self::Method,
        Self::NotUpgrade,
        Self::Version,
        Self::HeadTooLarge,
        Self::HttpVersion,
    ];

    /// The HTTP status code.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::Host | Self::Body | Self::Key => 400,
            Self::Path => 404,
            Self::Method => 405,
            Self::NotUpgrade | Self::Version => 426,
            Self::HeadTooLarge => 431,
            Self::HttpVersion => 505,
        }
    }

    /// Appends the whole response. The connection closes behind it.
    pub fn write(self, out: &mut Vec<u8>) {
        let (phrase, headers) = match self.status() {
            404 => ("Not Found", "Connection: close\r\n"),
            405 => ("Method Not Allowed", "Connection: close\r\nAllow: GET\r\n"),
            426 => (
                "Upgrade Required",
                "Connection: close, Upgrade\r\n\
                 Upgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\n",
            ),
            431 => ("Request Header Fields Too Large", "Connection: close\r\n"),
            505 => ("HTTP Version Not Supported", "Connection: close\r\n"),
            _ => ("Bad Request", "Connection: close\r\n"),
        };
        let status = self.status();
        let text = self.text();
        let response = format!(
            "HTTP/1.1 {status} {phrase}\r\n\
             {headers}\
             Content-Type: text/plain\r\n\
             Content-Length: {}\r\n\
             \r\n\
             {text}\n",
            text.len() + 1,
        );
        out.extend_from_slice(response.as_bytes());
    }

    /// The body: what to change.
    fn text(self) -> &'static str {
        match self {
            Self::Malformed => "This is not an HTTP request.",
            Self::Host => "A request needs exactly one Host header.",
            Self::Body => "An upgrade request has no body.",
            Self::Key => "Sec-WebSocket-Key must be 16 bytes in base64.",
            Self::Path => "There is no WebSocket at this path.",
            Self::Method => "A WebSocket is opened with GET.",
            Self::NotUpgrade => {
                "This is a WebSocket: send Upgrade: websocket and Connection: Upgrade."
            }
            Self::Version => "Only Sec-WebSocket-Version 13 is spoken.",
            Self::HeadTooLarge => "The request head is over 8192 bytes or 64 lines.",
            Self::HttpVersion => "Only HTTP/1.1 is spoken.",
        }
    }
}
