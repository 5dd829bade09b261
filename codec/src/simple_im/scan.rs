//! Packets in a stream without frames: which one this is, and whether it is all there.
//!
//! A packet begins with a header without a dot and reaches to the next one. Since clients end their
//! packets with nothing at all, it also ends where the input ends, once it has all that its kind
//! must have; where more could follow that matters, only silence tells.
//!
//! Owns: the names of packets, tables and keys, in every revision; where a packet ends. Never: what
//! a packet asks for, nor what its values are.

use std::ops::Range;

use super::lexer::{Ending, Form, Item, Lexer, Span};
use crate::error::{Decoded, Malformed, WireError};

/// The longest packet, in both directions: the specification's bound of unfinished input.
pub const PACKET_MAX: usize = 64 * 1024;

/// By its first header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `r`
    Request,
    /// `rr`
    Reply,
    /// `m`
    Message,
    /// `gm`
    GroupMessage,
    /// `a`
    Ack,
    /// `n`
    Notice,
    /// `gn`
    GroupNotice,
    Unknown,
}

/// The keys that mean something, or that at least must not come twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Field {
    Id,
    /// `t`: the kind of a request, of a message's content, or of a change.
    Type,
    Text,
    /// `to` as a key of `m` and `n`.
    To,
    /// `id` in `m.to`.
    ToTable,
    ToDevice,
    /// `group` as a key of `gm`.
    Group,
    /// `g_id` as a key of `gm` and `gn`.
    GroupId,
    /// `id` in `gm.group`.
    GroupTable,
    /// `id` in `r.user` and `rr.user`.
    User,
    Phone,
    Password,
    Token,
    Device,
    /// The device's key in the last revision.
    D,
    From,
    Time,
    Status,
    Reason,
}

impl Field {
    pub(super) const COUNT: usize = Self::Reason as usize + 1;
}

/// Which of the packet's tables the keys belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Top,
    User,
    From,
    To,
    Group,
    Unknown,
}

/// The packet that the input begins with, as far as it was looked at: once it is whole, its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    lexer: Lexer,
    /// `None` before the first header.
    kind: Option<Kind>,
    double: bool,
    table: Table,
    /// One bit per [`Field`].
    seen: u32,
    /// By [`Field`], of those that were seen.
    spans: [Span; Field::COUNT],
    /// The request is one that carries a user.
    login: bool,
    /// There is a key before the first header, or a header with a dot.
    stray: bool,
    /// From the first header to the end of the last value: `start <= end`.
    start: usize,
    end: usize,
}

/// Whether a packet that the input ends behind is all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    No,
    /// Something that matters may still follow.
    Perhaps,
    Yes,
}

impl Scan {
    /// `double`: the brackets of the connection.
    pub(super) fn new(double: bool) -> Self {
        Self {
            lexer: Lexer::new(double),
            kind: None,
            double,
            table: Table::Unknown,
            seen: 0,
            spans: [Span::NONE; Field::COUNT],
            login: false,
            stray: false,
            start: 0,
            end: 0,
        }
    }

    pub(super) fn kind(&self) -> Option<Kind> {
        self.kind
    }

    pub(super) fn double(&self) -> bool {
        self.double
    }

    pub(super) fn error(&self, what: Malformed) -> WireError {
        self.lexer.error(what)
    }

    /// Where the packet stands, of which [`Self::frame`] has said that it is whole.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Where the value of a field of the packet stands.
    pub(super) fn span(&self, field: Field) -> Option<Span> {
        self.has(&[field]).then(|| self.spans[field as usize])
    }

    /// Looks at all of `input`, or to where the next packet begins.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<Option<usize>, WireError> {
        while let Some(item) = self.lexer.next(input)? {
            if let Some(next) = self.take(input, item)? {
                return Ok(Some(next));
            }
        }
        Ok(None)
    }

    /// Takes the value that `input` ends with for whole: after [`Self::read`].
    pub(super) fn end(&mut self, input: &[u8]) -> Result<(), WireError> {
        if let Some(item) = self.lexer.last() {
            self.take(input, item)?;
        }
        Ok(())
    }

    /// Whether what was looked at ends between two tokens.
    pub(super) fn is_between_tokens(&self) -> bool {
        self.lexer.ending() != Ending::Within
    }

    /// The first packet of `input`, which begins as it did in the last call and may be longer.
    ///
    /// With `strays`, what stands before the first header is a packet too: the tail of one that
    /// was whole without it.
    pub(super) fn frame(
        &mut self,
        input: &[u8],
        quiet: bool,
        strays: bool,
    ) -> Result<Decoded<Range<usize>>, WireError> {
        let next = self.read(input)?;
        // Only a value without quotes may go on, and is not yet one of the fields.
        let ending = self.lexer.ending();
        let before = (next.is_none() && ending == Ending::Open).then_some(*self);
        // What it is if nothing more comes.
        self.end(input)?;
        if self.stray && !strays {
            return Err(WireError::new(Malformed::Syntax, self.start));
        }
        if let Some(at) = next {
            return self.framed(at);
        }
        let more = match self.is_whole(strays, ending) {
            Whole::Yes => return self.framed(input.len()),
            Whole::Perhaps if quiet => return self.framed(input.len()),
            Whole::Perhaps if input.len() <= PACKET_MAX => Decoded::Unsure,
            _ if input.len() >= PACKET_MAX => {
                return Err(WireError::new(Malformed::TooLarge, input.len()));
            }
            _ => Decoded::NeedMore { total: input.len() + 1 },
        };
        if let Some(before) = before {
            *self = before;
        }
        Ok(more)
    }

    fn framed(&self, consumed: usize) -> Result<Decoded<Range<usize>>, WireError> {
        if self.end - self.start > PACKET_MAX {
            return Err(WireError::new(Malformed::TooLarge, self.end));
        }
        Ok(Decoded::Frame { value: self.range(), consumed })
    }

    /// Notes an item of the packet; `Some`: the next one begins here.
    fn take(&mut self, input: &[u8], item: Item) -> Result<Option<usize>, WireError> {
        match item {
            Item::Header { double } => Ok(self.header(&input[self.lexer.text_range()], double)),
            Item::Pair(form) => self.pair(input, form).map(|()| None),
        }
    }

    fn header(&mut self, name: &[u8], double: bool) -> Option<usize> {
        let (start, end) = (self.lexer.start(), self.lexer.at());
        let child = name.iter().position(|byte| *byte == b'.').map(|dot| name.split_at(dot));
        match (child, self.kind) {
            (Some((top, child)), Some(kind)) => {
                self.table = table(kind, top, &child[1..]);
                self.end = end;
                None
            }
            (Some(_), None) => {
                self.begin_stray(start);
                self.end = end;
                None
            }
            (None, None) if !self.stray => {
                self.kind = Some(kind(name));
                self.double = double;
                self.table = Table::Top;
                self.start = start;
                self.end = end;
                None
            }
            (None, _) => Some(start),
        }
    }

    fn pair(&mut self, input: &[u8], form: Form) -> Result<(), WireError> {
        let (key, value) = (self.lexer.key_range(), self.lexer.text_range());
        // With the closing quote or bracket.
        self.end = self.lexer.at().max(value.end);
        let Some(kind) = self.kind else {
            self.begin_stray(key.start);
            return Ok(());
        };
        // An unknown key means nothing, and twice nothing is nothing.
        let Some(field) = field(kind, self.table, &input[key.clone()]) else { return Ok(()) };
        let bit = 1 << field as u8;
        if self.seen & bit != 0 {
            return Err(WireError::new(Malformed::Syntax, key.start));
        }
        self.seen |= bit;
        self.spans[field as usize] = Span::new(value.clone(), form);
        if (kind, field) == (Kind::Request, Field::Type) {
            self.login = matches!(&input[value], b"login" | b"reconnect");
        }
        Ok(())
    }

    fn begin_stray(&mut self, start: usize) {
        if !self.stray {
            self.stray = true;
            self.start = start;
        }
    }

    fn has(&self, fields: &[Field]) -> bool {
        fields.iter().all(|field| self.seen & 1 << *field as u8 != 0)
    }

    /// `ending`: of the input, which may go on.
    fn is_whole(&self, strays: bool, ending: Ending) -> Whole {
        let whole = match self.kind {
            _ if ending == Ending::Within => Whole::No,
            Some(kind) => self.is_complete(kind),
            None if strays && self.lexer.at() > 0 => Whole::Perhaps,
            None => Whole::No,
        };
        match whole {
            // A bare value may go on, and so may a comment.
            Whole::Yes if ending == Ending::Open => Whole::Perhaps,
            whole => whole,
        }
    }

    fn is_complete(&self, kind: Kind) -> Whole {
        use Field::{
            D, Device, Group, GroupId, GroupTable, Id, Password, Phone, Status, Text, To, ToTable,
            Token, Type, User,
        };
        let any = |fields: &[Field]| fields.iter().any(|field| self.has(&[*field]));
        let (must, may) = match kind {
            Kind::Request if self.login => {
                let by_token = self.has(&[User, Token]);
                let user = by_token || self.has(&[Phone, Password]);
                (self.has(&[Id]) && user && any(&[Device, D]), true)
            }
            Kind::Request => (self.has(&[Id, Type]), false),
            Kind::Reply => (self.has(&[Id, Status]), self.has(&[Type])),
            // The last revision says in `t` what the text is, wherever it likes.
            Kind::Message => (
                self.has(&[Id, Text]) && any(&[To, ToTable]),
                self.has(&[ToTable]) || self.has(&[Type]),
            ),
            Kind::GroupMessage => (
                self.has(&[Id, Text]) && any(&[Group, GroupId, GroupTable]),
                self.has(&[GroupTable]) || self.has(&[Type]),
            ),
            Kind::Ack => (self.has(&[Id]), true),
            Kind::Notice => (true, self.has(&[Id, To, Type])),
            Kind::GroupNotice => (true, self.has(&[Id, GroupId, Type])),
            Kind::Unknown => (true, false),
        };
        match (must, may) {
            (false, _) => Whole::No,
            (true, false) => Whole::Perhaps,
            (true, true) => Whole::Yes,
        }
    }
}

fn kind(name: &[u8]) -> Kind {
    match name {
        b"r" => Kind::Request,
        b"rr" => Kind::Reply,
        b"m" => Kind::Message,
        b"gm" => Kind::GroupMessage,
        b"a" => Kind::Ack,
        b"n" => Kind::Notice,
        b"gn" => Kind::GroupNotice,
        _ => Kind::Unknown,
    }
}

fn table(kind: Kind, top: &[u8], child: &[u8]) -> Table {
    match (kind, top, child) {
        (Kind::Request, b"r", b"user") | (Kind::Reply, b"rr", b"user") => Table::User,
        (Kind::Message, b"m", b"from") | (Kind::GroupMessage, b"gm", b"user") => Table::From,
        (Kind::Message, b"m", b"to") => Table::To,
        (Kind::GroupMessage, b"gm", b"group") => Table::Group,
        _ => Table::Unknown,
    }
}

fn field(kind: Kind, table: Table, key: &[u8]) -> Option<Field> {
    Some(match (table, key) {
        (Table::Top, b"id") => Field::Id,
        (Table::Top, b"t") => Field::Type,
        (Table::Top, _) => match (kind, key) {
            (Kind::Reply, b"s") => Field::Status,
            (Kind::Reply, b"r") => Field::Reason,
            (Kind::Message | Kind::GroupMessage, b"c") => Field::Text,
            (Kind::Notice, b"ask") => Field::Text,
            (Kind::Ack, b"d") => Field::D,
            (Kind::Message | Kind::Notice, b"to") => Field::To,
            (Kind::GroupMessage, b"group") => Field::Group,
            (Kind::GroupMessage | Kind::GroupNotice, b"g_id") => Field::GroupId,
            (Kind::Request | Kind::Reply | Kind::Ack | Kind::Unknown, _) => return None,
            (_, b"d") => Field::D,
            (_, b"from") => Field::From,
            (_, b"ts") => Field::Time,
            _ => return None,
        },
        (Table::User, b"id") => Field::User,
        (Table::User, b"phone") => Field::Phone,
        (Table::User, b"password") => Field::Password,
        (Table::User, b"token") => Field::Token,
        (Table::User | Table::From, b"device") => Field::Device,
        (Table::User, b"d") => Field::D,
        (Table::From, b"id") => Field::From,
        (Table::To, b"id") => Field::ToTable,
        (Table::To, b"device") => Field::ToDevice,
        (Table::Group, b"id") => Field::GroupTable,
        _ => return None,
    })
}
