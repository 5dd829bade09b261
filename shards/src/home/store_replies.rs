//! What the store answered.

use codec::{GroupKey, UserKey};
use storage::{Row, StoreError};

use crate::home::Home;
use crate::home::effects::{Effects, Timer};
use crate::home::inbox::{Kept, Mode, Owed};
use crate::home::outcome::Outcome;
use crate::io::Now;
use crate::limits::STORE_RETRY_MS;
use crate::mutants::{self, Mutant};

impl Home {
    /// An append is durable, or it is not.
    pub fn appended(
        &mut self,
        key: UserKey,
        seq: u64,
        result: Result<(), StoreError>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        self.counters.count_append(result);
        let result = if mutants::on(Mutant::IgnoreStoreError) { Ok(()) } else { result };
        let Some(index) = self.users.find(key) else { return };
        let user = self.users.at(index);
        let Some(inbox) = &mut user.inbox else { return };
        if let Ok(position) = inbox.behind.binary_search_by_key(&seq, |delivery| delivery.seq) {
            let delivery = inbox.behind.remove(position).expect("found");
            self.settle(delivery.owed, key, Outcome::from(result), now, fx);
            self.tidy_user(index, fx);
            return;
        }
        let Some(delivery) = inbox.find(seq).filter(|delivery| !delivery.done) else { return };
        match result {
            Ok(()) => {
                delivery.kept = Kept::Stored;
                let owed = std::mem::replace(&mut delivery.owed, Owed::Nobody);
                self.settle(owed, key, Outcome::Stored, now, fx);
                // It may leave memory, and what waits for that comes next.
                self.push_user(index, now, fx);
                self.tidy_user(index, fx);
            }
            Err(_) => {
                // Back in flight, unacknowledged: a terminal may still take it.
                let again = now.plus_ms(STORE_RETRY_MS);
                delivery.kept = Kept::Memory;
                delivery.since = again;
                let at = again.plus_ms(self.config.persist_after_ms);
                self.users.at(index).deadline.want(fx, Timer::User(key), at);
            }
        }
    }

    /// Rows of a read.
    pub fn rows(
        &mut self,
        key: UserKey,
        result: Result<(Vec<Row>, bool), StoreError>,
        now: Now,
        fx: &mut impl Effects,
    ) {
        let Some(index) = self.users.find(key) else { return };
        let user = self.users.at(index);
        let Some(inbox) = &mut user.inbox else { return };
        if inbox.stale_reads > 0 {
            inbox.stale_reads -= 1;
            self.tidy_user(index, fx);
            return;
        }
        if !inbox.reading || inbox.mode != Mode::CatchingUp {
            return;
        }
        inbox.reading = false;
        match result {
            Ok((rows, more)) => {
                let suspect = inbox.queue.is_empty() && rows.first().is_some_and(|r| r.suspect);
                inbox.take_rows(rows, now);
                if !more {
                    inbox.go_live();
                }
                inbox.invariants();
                if suspect {
                    self.restart_windows(index);
                }
            }
            Err(_) => {
                let again = now.plus_ms(STORE_RETRY_MS);
                inbox.read_again = Some(again);
                user.deadline.want(fx, Timer::User(key), again);
            }
        }
        let user = self.users.at(index);
        user.deadline.want(fx, Timer::User(key), now.plus_ms(self.config.persist_after_ms));
        self.push_user(index, now, fx);
        self.tidy_user(index, fx);
    }

    /// Another process changed the store: members and names are read again at their next use.
    pub fn store_changed(&mut self) {
        self.groups.forget();
        self.names.forget();
    }

    /// Somebody has come into a group or left it.
    pub fn group_changed(&mut self, group: GroupKey) {
        self.groups.forget_one(group);
    }

    /// Dead letters of a user were put back: read from the start once nothing is in memory.
    pub fn requeued(&mut self, key: UserKey, fx: &mut impl Effects) {
        let Some(index) = self.users.find(key) else { return };
        if self.users.at(index).terminals.is_empty() {
            return;
        }
        self.users.at(index).requeued = true;
        self.read_requeued(index, fx);
    }

    /// Starts over from the first row, if that was asked for and the queue is empty.
    pub(super) fn read_requeued(&mut self, index: u32, fx: &mut impl Effects) {
        let user = self.users.at(index);
        if !user.requeued || user.terminals.is_empty() {
            user.requeued = false;
            return;
        }
        let live = user.inbox.as_ref().is_none_or(|i| i.mode == Mode::Live && i.queue.is_empty());
        if !live {
            return;
        }
        user.requeued = false;
        let inbox = user.inbox.take();
        let mut inbox = inbox.unwrap_or_else(|| self.take_inbox());
        inbox.mode = Mode::CatchingUp;
        inbox.read_after = 0;
        self.users.at(index).inbox = Some(inbox);
        for slot in self.terminals(index) {
            if let Some(session) = self.sessions.get_mut(slot.index) {
                session.cursor = 0;
                // What was let go is pushed again.
                session.flights.forget_let_go(&mut self.spare_flights);
            }
        }
        self.read_more(index, fx);
    }

    /// A round failed on the oldest row: one at a time until the client acknowledges again.
    fn restart_windows(&mut self, index: u32) {
        for slot in self.terminals(index) {
            if let Some(session) = self.sessions.get_mut(slot.index)
                && session.flights.is_empty()
            {
                session.window = 1;
            }
        }
    }
}
