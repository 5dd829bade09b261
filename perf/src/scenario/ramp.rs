//! Who is to be online, who is, and who is on the way.
//!
//! Owns: the pace of logins, the bound of logins in progress, the retries. Never: sends a message.

use super::{Abort, SECOND, Setup};
use crate::client::{Client, Login};
use crate::engine::{Closed, Engine};
use crate::pace::Pace;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Offline,
    Waiting,
    LoggingIn,
    Online,
    /// He hangs up, and his connection is not closed yet.
    Leaving,
}

/// The presence of one worker's connections.
#[derive(Debug)]
pub(crate) struct Ramp {
    states: Vec<State>,
    /// To be opened, in this order.
    waiting: VecDeque<u32>,
    /// To be opened again when their time (in nanoseconds of the run) has come.
    retries: BinaryHeap<Reverse<(u64, u32)>>,
    logging_in: usize,
    /// Online or leaving.
    online: usize,
    concurrency: usize,
    pace: Option<Pace>,
    /// A login that fails, or a connection that is lost, is tried again instead of ending the run.
    pub stubborn: bool,
    /// Whoever goes is expected to go, and stays away.
    pub leaving: bool,
    /// Logins that failed, and connections that were lost, and were tried again.
    pub failed: u64,
    pub lost: u64,
}

impl Ramp {
    /// `share`: this worker's part of the run, for the limits that are meant for all.
    pub(crate) fn new(setup: &Setup, connections: usize, share: f64) -> Self {
        let concurrency = ((setup.login_concurrency as f64 * share).ceil() as usize).max(1);
        Self {
            states: vec![State::Offline; connections],
            waiting: VecDeque::new(),
            retries: BinaryHeap::new(),
            logging_in: 0,
            online: 0,
            concurrency,
            pace: setup.ramp_per_s.map(|rate| Pace::new(rate * share)),
            stubborn: false,
            leaving: false,
            failed: 0,
            lost: 0,
        }
    }

    /// Has those of `who` that are offline log in.
    pub(crate) fn add(&mut self, who: impl Iterator<Item = usize>, now_ns: u64) {
        for index in who {
            if self.states[index] == State::Offline {
                self.states[index] = State::Waiting;
                self.waiting.push_back(index as u32);
            }
        }
        if let Some(pace) = &mut self.pace {
            pace.start(now_ns);
        }
    }

    /// Everybody who was to log in has.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.retries.is_empty() && self.logging_in == 0
    }

    pub(crate) fn is_online(&self, index: usize) -> bool {
        self.states[index] == State::Online
    }

    pub(crate) fn is_offline(&self, index: usize) -> bool {
        self.states[index] == State::Offline
    }

    /// Connections that are logged in, and have not been found closed.
    pub(crate) fn online(&self) -> usize {
        self.online
    }

    /// Somebody who is online is about to hang up.
    pub(crate) fn leave(&mut self, index: usize) {
        debug_assert_eq!(self.states[index], State::Online);
        self.states[index] = State::Leaving;
    }

    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    /// The connection's event `Ready`.
    pub(crate) fn logged_in(&mut self, index: usize) {
        if self.states[index] == State::LoggingIn {
            self.states[index] = State::Online;
            self.logging_in -= 1;
            self.online += 1;
        }
    }

    /// Opens what may be opened, and works off what was closed; `lost` hears of connections that
    /// were online. Says when it wants to be called again.
    pub(crate) fn turn<C: Client>(
        &mut self,
        engine: &mut Engine<C>,
        login: impl Fn(usize) -> Login,
        mut lost: impl FnMut(usize),
    ) -> Result<u64, Abort> {
        while let Some((index, why)) = engine.next_closed() {
            if self.closed(index, &why, engine.clock.now_ns())? {
                lost(index);
            }
        }
        let now_ns = engine.clock.now_ns();
        while let Some(Reverse((due_ns, index))) = self.retries.peek().copied()
            && due_ns <= now_ns
        {
            self.retries.pop();
            self.waiting.push_back(index);
        }
        while self.logging_in < self.concurrency && !self.waiting.is_empty() {
            if let Some(pace) = &mut self.pace
                && pace.next_due(now_ns).is_none()
            {
                break;
            }
            let index = self.waiting.pop_front().map_or(0, |index| index as usize);
            self.states[index] = State::LoggingIn;
            self.logging_in += 1;
            engine.open(index, login(index))?;
        }
        Ok(self.next_ns(now_ns))
    }

    fn next_ns(&self, now_ns: u64) -> u64 {
        let retry = self.retries.peek().map_or(u64::MAX, |Reverse((due_ns, _))| *due_ns);
        let paced = match &self.pace {
            Some(pace) if !self.waiting.is_empty() => pace.due_ns(),
            _ => u64::MAX,
        };
        retry.min(paced).max(now_ns)
    }

    /// `Ok(true)`: a connection that was online is gone.
    fn closed(&mut self, index: usize, why: &Closed, now_ns: u64) -> Result<bool, Abort> {
        let before = std::mem::replace(&mut self.states[index], State::Offline);
        if before == State::LoggingIn {
            self.logging_in -= 1;
        }
        let was_online = before == State::Online;
        self.online -= usize::from(was_online || before == State::Leaving);
        if self.leaving || before == State::Leaving || matches!(why, Closed::Asked) {
            return Ok(was_online);
        }
        if self.stubborn && why.may_pass() {
            self.failed += u64::from(!was_online);
            self.lost += u64::from(was_online);
            self.states[index] = State::Waiting;
            // Spread by index, so that not all come back in the same instant.
            let delay_ns = RETRY_NS + (index as u64 * 7919) % RETRY_NS;
            self.retries.push(Reverse((now_ns + delay_ns, index as u32)));
            return Ok(was_online);
        }
        Err(Abort(match was_online {
            true => format!("connection {index} was lost: {why}"),
            false => format!("connection {index} did not log in: {why}"),
        }))
    }
}

/// The shortest time to the next try.
const RETRY_NS: u64 = SECOND / 4;
