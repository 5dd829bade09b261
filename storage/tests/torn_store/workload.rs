//! The writer: a store in use, and its account of what was acknowledged, in the order of things.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use codec::{GroupId, GroupKey, Message, MessageId, ProtocolId, Target, TenantId, UserId, UserKey};
use storage::sqlite::{Options, SqliteStore};
use storage::store::Write;
use storage::{Append, DeadReason, Store as _};

/// Where a traced writer works.
pub(crate) const DIR_VARIABLE: &str = "RINGPOST_TORN_STORE_DIR";
/// The account's file.
pub(crate) const MARKS: &str = "marks";
pub(crate) const DATABASE: &str = "store.db";

/// Whose row, and which.
pub(crate) type Key = (u32, u64);

/// What must be true of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its append is under way: there or not.
    Appending,
    Kept,
    /// Its delete is under way: there or not.
    Deleting,
    Gone,
    /// Becoming a dead letter: a row or a dead letter, not neither.
    Burying,
    Dead,
}

impl Fate {
    const ALL: [(char, Self); 6] = [
        ('A', Self::Appending),
        ('a', Self::Kept),
        ('D', Self::Deleting),
        ('d', Self::Gone),
        ('B', Self::Burying),
        ('b', Self::Dead),
    ];

    /// Whether it may be found among the rows (`kept`) and the dead letters (`dead`) like this.
    pub(crate) fn allows(self, kept: bool, dead: bool) -> bool {
        match self {
            Self::Appending | Self::Deleting => !dead,
            Self::Kept => kept && !dead,
            Self::Gone => !kept && !dead,
            Self::Burying => kept != dead,
            Self::Dead => !kept && dead,
        }
    }
}

/// What was acknowledged so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) rows: BTreeMap<Key, Fate>,
    /// Batches that were done, and that failed.
    pub(crate) done: u32,
    pub(crate) failed: u32,
}

impl Account {
    /// Reads lines as the writer wrote them.
    pub(crate) fn add(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split(' ');
            let kind = words.next().unwrap();
            match kind {
                "done" => self.done += 1,
                "failed" => self.failed += 1,
                _ => {
                    let (_, fate) = Fate::ALL.iter().find(|(c, _)| kind.starts_with(*c)).unwrap();
                    let mut number = || words.next().unwrap().parse::<u64>().unwrap();
                    let key = (number() as u32, number());
                    self.rows.insert(key, *fate);
                }
            }
        }
    }

    fn all(&self, fate: Fate) -> Vec<Key> {
        self.rows.iter().filter(|(_, f)| **f == fate).map(|(key, _)| *key).collect()
    }
}

/// Appends, deletes and buries in batches, three times opening and leaving the store.
pub(crate) fn run(dir: &Path) -> Account {
    let mut marks = File::create(dir.join(MARKS)).unwrap();
    let mut account = Account::default();
    let mut random = Random(7);
    let mut seq = 0;
    for _ in 0..SESSIONS {
        let mut store = open(dir);
        for _ in 0..BATCHES {
            let batch = Batch::draw(&mut seq, &account, &mut random);
            let mut mark = |text: String| {
                marks.write_all(text.as_bytes()).unwrap();
                account.add(&text);
            };
            mark(batch.text(['A', 'D', 'B']));
            let results = store.write(&batch.writes());
            if results.iter().all(Result::is_ok) {
                mark(batch.text(['a', 'd', 'b']) + "done\n");
            } else {
                // Nothing was acknowledged: what was asked for may be repeated.
                mark("failed\n".to_owned());
            }
        }
    }
    account
}

/// Where the disk fails for a while, opening fails too; the operator tries again.
fn open(dir: &Path) -> SqliteStore {
    // Few pages: the log is written back and begun anew many times.
    let options = Options { checkpoint_pages: 24, ..Options::default() };
    let try_open = |_| SqliteStore::open(&dir.join(DATABASE), options.clone()).ok();
    (0..OPENINGS_MAX).find_map(try_open).expect("the disk works again by now")
}

/// The keys of one transaction.
struct Batch {
    appends: Vec<Key>,
    deletes: Vec<Key>,
    buries: Vec<Key>,
}

impl Batch {
    fn draw(seq: &mut u64, account: &Account, random: &mut Random) -> Self {
        let mut appends = Vec::new();
        for _ in 0..4 {
            *seq += 1;
            if is_group(*seq) {
                appends.extend((1..=USERS).map(|user| (user, *seq)));
            } else {
                appends.push((1 + random.below(u64::from(USERS)) as u32, *seq));
            }
        }
        let mut kept = account.all(Fate::Kept);
        let mut draw = |count| -> Vec<Key> {
            let count = kept.len().saturating_sub(ROWS_LEFT).min(count);
            (0..count).map(|_| kept.swap_remove(random.below(kept.len() as u64) as usize)).collect()
        };
        let (mut deletes, mut buries) = (draw(6), draw(1));
        deletes.extend(account.all(Fate::Deleting));
        buries.extend(account.all(Fate::Burying));
        Self { appends, deletes, buries }
    }

    fn text(&self, [append, delete, bury]: [char; 3]) -> String {
        let lists = [(append, &self.appends), (delete, &self.deletes), (bury, &self.buries)];
        let line = |kind: char, key: &Key| format!("{kind} {} {}\n", key.0, key.1);
        lists.iter().flat_map(|(kind, keys)| keys.iter().map(|key| line(*kind, key))).collect()
    }

    fn writes(&self) -> Vec<Write> {
        let appends = self.appends.iter().map(|key| {
            let (user, seq, message) = (user(key.0), key.1, Arc::new(message(*key)));
            Write::Append(Append { user, seq, message, binding: None })
        });
        let deletes = self.deletes.iter().map(|k| Write::Delete { user: user(k.0), seq: k.1 });
        let reason = DeadReason::Poison;
        let buries =
            self.buries.iter().map(|k| Write::DeadLetter { user: user(k.0), seq: k.1, reason });
        appends.chain(deletes).chain(buries).collect()
    }
}

pub(crate) fn user(id: u32) -> UserKey {
    UserKey { tenant: TenantId(0), id: UserId(id) }
}

fn is_group(seq: u64) -> bool {
    seq.is_multiple_of(8)
}

/// Everything about a message follows from its key, so that what is read back can be checked.
pub(crate) fn message(key: Key) -> Message {
    let (id, seq) = key;
    let (to, stamp) = if is_group(seq) {
        (Target::Group(GroupKey { tenant: TenantId(0), id: GroupId(1) }), u128::from(seq))
    } else {
        (Target::User(user(id)), u128::from(seq) << 64 | u128::from(id))
    };
    let mut random = Random(seq);
    let len = if random.below(8) == 0 { 6_000 } else { random.below(400) };
    Message {
        stamp,
        id: MessageId::new(&seq.to_be_bytes()).unwrap(),
        from: None,
        from_name: seq.to_string().into_bytes().into(),
        to,
        protocol: ProtocolId::ALL[0],
        time_ms: seq,
        body: (0..len).map(|_| random.below(256) as u8).collect(),
    }
}

/// splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }
}

pub(crate) const USERS: u32 = 6;
const SESSIONS: u32 = 3;
const BATCHES: u32 = 16;
const OPENINGS_MAX: u32 = 20;
/// Rows that are left when others are drawn.
const ROWS_LEFT: usize = 12;
