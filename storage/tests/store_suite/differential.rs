//! The embedded and the external store against the reference: the same random operations on both,
//! and after each step the same answers. Several handles write to the one store; small caps are hit
//! all the time.

use std::collections::HashSet;

use codec::{Query, TenantId, UserKey};
use storage::store::Write;
use storage::{Caps, MemoryStore, NameKind, Store};

use crate::external::{self, External};
use crate::forms::*;
use crate::kit::*;

/// A backend that another process may use at the same time.
trait Rival: Backend {
    fn another(&self) -> Box<dyn Store>;
    /// Rows, bodies, dead letters, and what is counted of them.
    fn left_over(&mut self) -> Vec<i64>;
}

impl Rival for Embedded {
    fn another(&self) -> Box<dyn Store> {
        Box::new(self.handle())
    }

    fn left_over(&mut self) -> Vec<i64> {
        let count = |table| self.sql(&format!("SELECT count(*) FROM {table}"));
        let totals = self.sql("SELECT rows + bytes FROM totals");
        vec![count("delivery"), count("bodies"), count("dead_letters"), totals]
    }
}

impl Rival for External {
    fn another(&self) -> Box<dyn Store> {
        Box::new(self.handle())
    }

    fn left_over(&mut self) -> Vec<i64> {
        let mut redis = self.place.redis();
        let count = |pattern: &str, redis: &mut redis::Connection| {
            let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg(pattern).query(redis).unwrap();
            keys.len() as i64
        };
        let patterns = ["ringpost_rows_*", "ringpost_b*", "ringpost_dead", "ringpost_age", "*off*"];
        let mut left: Vec<i64> = patterns.iter().map(|p| count(p, &mut redis)).collect();
        let mut totals = redis::cmd("HMGET");
        totals.arg("ringpost_totals").arg("rows").arg("bytes");
        let totals: Vec<i64> = totals.query(&mut redis).unwrap();
        left.extend(totals);
        left
    }
}

#[test]
fn embedded_and_memory_stores_answer_alike_whatever_is_asked() {
    alike::<Embedded>(SEEDS);
}

#[test]
fn external_and_memory_stores_answer_alike_whatever_is_asked() {
    if external::is_available() {
        alike::<External>(SEEDS / 4);
    }
}

fn alike<B: Rival>(seeds: u64) {
    for seed in 0..seeds {
        let caps = Caps { user_rows: 6, user_bytes: 60, store_rows: 30, store_bytes: 300 };
        let mut pair = Pair {
            random: Random(seed),
            memory: MemoryStore::open(caps, Some(500)),
            rival: Some(B::open(caps, Some(500))),
            buried: HashSet::new(),
        };
        for (id, name) in [(0, "zero"), (1, "one"), (2, "4")] {
            assert!(Backend::add_user(&mut pair.memory, user(id), name.as_bytes(), ""));
            assert!(pair.rival().add_user(user(id), name.as_bytes(), ""));
        }
        for step in 0..STEPS {
            pair.step();
            pair.compare(&format!("seed {seed}, step {step}"));
        }
        pair.drain();
        let left = pair.rival().left_over();
        assert!(left.iter().all(|count| *count == 0), "seed {seed}: {left:?}");
    }
}

struct Pair<B> {
    random: Random,
    memory: MemoryStore,
    /// `None` while it restarts.
    rival: Option<B>,
    /// A key is never used for a second message, so not while a dead letter has it.
    buried: HashSet<(UserKey, u64)>,
}

impl<B: Rival> Pair<B> {
    fn rival(&mut self) -> &mut B {
        self.rival.as_mut().expect("not while it restarts")
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0 => self.rival = self.rival.take().map(B::restart),
            1 => {
                let now_ms = 1_400 + self.random.below(200);
                let expired = Backend::store(&mut self.memory).expire(now_ms);
                assert_eq!(self.rival().store().expire(now_ms), expired);
                let letters = self.memory.dead_letters();
                self.buried.extend(letters.iter().map(|(user, row, _)| (*user, row.seq)));
            }
            2 => {
                let (user, seq) = self.row();
                let back = MemoryStore::requeue(&mut self.memory, user, seq);
                assert_eq!(self.rival().requeue(user, seq), back);
            }
            3 => {
                let (user, seq) = self.row();
                let dropped = MemoryStore::drop_dead(&mut self.memory, user, seq);
                assert_eq!(self.rival().drop_dead(user, seq), dropped);
            }
            5..8 => {
                let queries: Vec<_> = (0..6).map(|_| self.query()).collect();
                let expected = self.memory.queries(&queries);
                assert_eq!(self.rival().store().queries(&queries), expected, "{queries:?}");
            }
            kind => {
                let count = self.random.below(12);
                let writes: Vec<_> = (0..count).map(|_| self.write()).collect();
                let expected = self.memory.write(&writes);
                // Now and then from another process.
                let results = if kind == 4 {
                    self.rival().another().write(&writes)
                } else {
                    self.rival().store().write(&writes)
                };
                assert_eq!(results, expected, "{writes:?}");
            }
        }
    }

    fn row(&mut self) -> (UserKey, u64) {
        (user(self.random.below(USERS) as u32), self.random.below(SEQS) + 1)
    }

    fn write(&mut self) -> Write {
        let (user, seq) = self.row();
        let body = vec![b'x'; self.random.below(30) as usize];
        match self.random.below(10) {
            0..6 if self.buried.contains(&(user, seq)) => delete(user, seq),
            0..3 => append(user, seq, &body),
            // The stamp stands for the body: all recipients of one message have the same.
            3..6 => {
                let stamp = u128::from(self.random.below(8));
                append_message(user, seq, to_group(stamp, group(1), &vec![1; stamp as usize * 5]))
            }
            6 => failed(user, seq, self.random.below(2) == 0),
            7 => {
                self.buried.insert((user, seq));
                dead(user, seq)
            }
            _ => delete(user, seq),
        }
    }

    fn query(&mut self) -> (UserKey, Query) {
        let asker = user(self.random.below(USERS) as u32);
        let mut name = |names: &[&str]| -> Box<[u8]> {
            let name = names[self.random.below(names.len() as u64) as usize];
            name.as_bytes().into()
        };
        let (person, group) = (name(&PEOPLE), name(&GROUPS));
        let (id, title) = (name(&["a", "b", "3", ""]), name(&["", "Title"]));
        let users = vec![name(&PEOPLE), name(&PEOPLE)];
        let query = match self.random.below(8) {
            0 => Query::Contacts,
            1 => Query::AddContact(person),
            2 => Query::RemoveContact(person),
            3 => Query::Groups,
            4 => Query::CreateGroup { id, title, users },
            5 => Query::JoinGroup(group),
            6 => Query::LeaveGroup(group),
            _ => Query::Members(group),
        };
        (asker, query)
    }

    fn compare(&mut self, context: &str) {
        for id in 0..USERS as u32 {
            let memory = rows(&mut self.memory, user(id));
            assert_eq!(rows(self.rival().store(), user(id)), memory, "{context}");
        }
        let after = self.random.below(SEQS);
        let bytes = self.random.below(60) as u32;
        let memory = self.memory.read(user(0), after, 3, bytes);
        assert_eq!(self.rival().store().read(user(0), after, 3, bytes), memory, "{context}");
        assert_eq!(self.rival().store().max_seq(), self.memory.max_seq(), "{context}");
        let dead = Backend::dead_letters(&mut self.memory);
        assert!(self.rival().dead_letters() == dead, "other dead letters: {context}");
        for name in [&b"4"[..], b"3", b"a", b"#3", b"2000000000", b"nobody"] {
            for what in [NameKind::Any, NameKind::Group] {
                let found = self.memory.resolve(TenantId(0), name, what);
                assert_eq!(self.rival().store().resolve(TenantId(0), name, what), found);
            }
        }
        let requeued = self.memory.take_requeued();
        assert_eq!(self.rival().store().take_requeued(), requeued, "{context}");
    }

    fn drain(&mut self) {
        for (user, seq, ..) in self.rival().dead_letters() {
            assert!(self.rival().drop_dead(user, seq));
        }
        let all = (0..USERS as u32).flat_map(|id| (1..=SEQS).map(move |seq| delete(user(id), seq)));
        let results = self.rival().store().write(&all.collect::<Vec<_>>());
        assert!(results.iter().all(Result::is_ok));
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }
}

/// Some are nobody, some two things at once.
const PEOPLE: [&str; 6] = ["zero", "one", "4", "0", "3", "nobody"];
const GROUPS: [&str; 6] = ["a", "b", "3", "2000000000", "2000000001", "none"];
const SEEDS: u64 = 8;
const STEPS: u32 = 60;
const USERS: u64 = 5;
const SEQS: u64 = 12;
