//! A connection on its way to its user's home shard.
//!
//! Its descriptor goes from ring to ring, its state through the mesh; both carry one token, and
//! the target joins them in whichever order they come. Nothing is armed on the connection
//! meanwhile, and bytes not read yet stay in its socket.

use std::collections::HashMap;

use codec::AnyProtocol;

use crate::conn::Framing;
use crate::home::Login;
use crate::home::effects::{Effects, Timer};
use crate::io::{Now, ShardIndex, Slot};
use crate::limits::HAND_OVER_MS;
use crate::tls::Tls;

/// What a connection is besides its descriptor.
#[derive(Debug)]
pub struct HandOver {
    pub(crate) framing: Framing,
    pub(crate) protocol: AnyProtocol,
    pub(crate) tls: Option<Box<Tls>>,
    /// Bytes that were read and not parsed.
    pub(crate) spill: Vec<u8>,
    /// See [`crate::conn::LoginWait::message`].
    pub(crate) message: Vec<u8>,
    pub(crate) login: Login,
}

/// Names a hand-over, uniquely over all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    giver: ShardIndex,
    /// Of the giver's hand-overs.
    counter: u32,
}

impl Token {
    pub(crate) fn new(giver: ShardIndex, counter: u32) -> Self {
        Self { giver, counter }
    }

    /// As [`crate::io::Io::hand_over`] takes it: at most 48 bits.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.giver) << 32 | u64::from(self.counter)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { giver: (bits >> 32) as ShardIndex, counter: bits as u32 }
    }
}

#[derive(Debug)]
enum Half {
    Descriptor(Slot),
    State(Box<HandOver>),
}

/// Hand-overs of which one half has come.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(HashMap<Token, Half>);

impl Arrivals {
    /// The descriptor has come; gives the state if that was first.
    pub(crate) fn descriptor(
        &mut self,
        token: Token,
        slot: Slot,
        now: Now,
        fx: &mut impl Effects,
    ) -> Option<Box<HandOver>> {
        match self.0.remove(&token) {
            Some(Half::State(state)) => return Some(state),
            // Two descriptors under one token cannot happen; the older one times out on its own.
            Some(Half::Descriptor(_)) | None => {}
        }
        self.wait(token, Half::Descriptor(slot), now, fx);
        None
    }

    /// The state has come; gives it back with its connection if that was first.
    pub(crate) fn state(
        &mut self,
        token: Token,
        state: Box<HandOver>,
        now: Now,
        fx: &mut impl Effects,
    ) -> Option<(Slot, Box<HandOver>)> {
        if let Some(Half::Descriptor(slot)) = self.0.remove(&token) {
            return Some((slot, state));
        }
        self.wait(token, Half::State(state), now, fx);
        None
    }

    /// The other half has not come in time. Gives the connection to close, if it is the one here.
    pub(crate) fn give_up(&mut self, token: Token) -> Option<Slot> {
        match self.0.remove(&token) {
            Some(Half::Descriptor(slot)) => Some(slot),
            _ => None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn wait(&mut self, token: Token, half: Half, now: Now, fx: &mut impl Effects) {
        self.0.insert(token, half);
        fx.arm(Timer::HandOver(token), now.plus_ms(HAND_OVER_MS));
    }
}
