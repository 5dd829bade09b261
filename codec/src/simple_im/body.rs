//! The body of a message as it is routed and stored.
//!
//! ```text
//!   u8 media (0 text, 1 image, 2 audio, 3 video) | u8 n | n bytes: the sender's device | the text
//! ```
//!
//! What one client wrote is never shown to another as it is: brackets, escapes and tables are the
//! receiver's own. Owns: this layout. Never: either client's syntax.

use crate::message::Content;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    Text,
    Image,
    Audio,
    Video,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Body<'a> {
    pub(super) media: Media,
    /// Empty: unknown.
    pub(super) device: &'a [u8],
    /// With a media: where the file is.
    pub(super) text: &'a [u8],
}

impl Media {
    const ALL: [Self; 4] = [Self::Text, Self::Image, Self::Audio, Self::Video];

    /// The word on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }

    /// A word that nobody knows means text, as none does.
    pub(super) fn from_name(name: &[u8]) -> Self {
        let known = Self::ALL.into_iter().find(|media| media.name().as_bytes() == name);
        known.unwrap_or(Self::Text)
    }
}

/// Appends what stands before the text; `device` is at most 255 bytes.
pub(super) fn put_head(media: Media, device: &[u8], out: &mut Vec<u8>) {
    let len = u8::try_from(device.len()).expect("names are short");
    out.extend_from_slice(&[media as u8, len]);
    out.extend_from_slice(device);
}

impl<'a> Body<'a> {
    /// `None` if it is not of this layout.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let (&[media, len], rest) = body.split_first_chunk()?;
        let (device, text) = rest.split_at_checked(len.into())?;
        Some(Self { media: *Media::ALL.get(usize::from(media))?, device, text })
    }

    pub(super) fn content(&self) -> Content<'a> {
        let Ok(text) = simdutf8::basic::from_utf8(self.text) else {
            return Content::Opaque(self.text);
        };
        match self.media {
            Media::Text => Content::Text(text),
            Media::Image => Content::Image(text),
            Media::Audio => Content::Audio(text),
            Media::Video => Content::Video(text),
        }
    }
}
