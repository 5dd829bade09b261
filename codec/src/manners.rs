//! How a session of a protocol behaves, in words that every protocol shares: what the shards need
//! to know of it instead of its name.

/// Asked of the connection's codec when its login holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manners {
    pub acks: Acks,
    /// `None`: a push without acknowledgement is never sent again on the same connection, and
    /// waits in the store for the next login.
    pub resends: Option<Resends>,
    pub heartbeat: Heartbeat,
    /// The client never uses an id twice, so that a second publish with it is a resend.
    pub unique_ids: bool,
    pub answers: Answers,
    /// Packets leave alone, so many milliseconds apart or after the client's acknowledgement of
    /// the one before; 0: as many at once as there are.
    pub gap_ms: u16,
    /// In the public room of the tenant.
    pub room: bool,
    /// The client understands that a publish is refused, and why.
    pub refusals: bool,
    pub patience: Patience,
    /// Where a terminal logs in again, the newcomer is refused and the older one stays.
    pub keeps_older: bool,
    /// Which of the sender's terminals get his own message to a group.
    pub group_echo: Echo,
    /// What the user says to another one, his other terminals get a copy of, as far as this is so
    /// for them, too: they can tell that it is his own.
    pub copies: bool,
    /// Everybody may publish to every group; else only its members.
    pub open_groups: bool,
    /// Publishes may tell more of the client than his login did: asked again with each.
    pub tentative: bool,
}

/// Terminals of the one who sends something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    Nowhere,
    /// All but the sending one, as a courtesy: nobody waits for it, and the store never has it.
    Elsewhere,
    /// All of them, the sending one too: he is a recipient like any other.
    Everywhere,
}

/// What tells that a client has a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// [`crate::Packet::Ack`] or [`crate::Packet::AckOldest`].
    Packets,
    /// The client cannot say so: its kernel has acknowledged the bytes. Packets count, too.
    Bytes,
    /// Nothing: what is in the socket counts as delivered. Lossy.
    Sent,
}

/// What becomes of a push that is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resends {
    /// Milliseconds from a copy that has left to the next one.
    pub interval_ms: u32,
    /// Copies after the first; one interval after the last of them it is given up.
    pub max: u8,
    /// Giving up ends the connection. Where it does not, the push waits in the store for the next
    /// login, and the connection goes on without it.
    pub ends: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// We ask after each interval of silence, and close after some questions without an answer:
    /// the last of them has an interval, too.
    Ping,
    /// The client says something within every interval. So many silent ones are the end; we ask
    /// after each before the last.
    Expected,
    /// Silence means nothing.
    None,
}

impl Heartbeat {
    /// Whether the end of a silent interval is the session's, after so many questions without an
    /// answer. `max`: the operator's bound.
    pub fn is_lost(self, unanswered: u8, max: u8) -> bool {
        match self {
            Self::Ping => unanswered >= max,
            Self::Expected => unanswered >= max.saturating_sub(1),
            Self::None => false,
        }
    }
}

/// In which order publishes and queries are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Each publish when it is safe; failures not at all, unless their reason is final.
    AsTheyCome,
    /// Every request gets exactly one answer, in the order of the requests.
    InOrder,
}

/// How many malformed packets are answered and forgiven after the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// The first ends the connection.
    None,
    /// So many are.
    UpTo(u8),
    Endless,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            acks: Acks::Packets,
            resends: Some(Resends { interval_ms: 2_000, max: 3, ends: true }),
            heartbeat: Heartbeat::Ping,
            unique_ids: true,
            answers: Answers::AsTheyCome,
            gap_ms: 0,
            room: false,
            refusals: false,
            patience: Patience::None,
            keeps_older: false,
            group_echo: Echo::Nowhere,
            copies: false,
            open_groups: false,
            tentative: false,
        }
    }
}
