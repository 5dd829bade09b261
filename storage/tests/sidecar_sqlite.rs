//! The sidecar over the embedded store, with logins through a second handle and the command line
//! as a third: what the three of them see of each other.

mod doubles;

use std::path::Path;
use std::time::{Duration, Instant};

use codec::{GroupId, GroupKey, TenantId, UserId};
use crossbeam_channel::{Receiver, unbounded};
use doubles::{PATIENCE, append, auth, delete, read, user, word};
use storage::Admin as _;
use storage::admin::{NewGroup, NewUser};
use storage::auth::{Authenticator, Local, hash_password};
use storage::sidecar::{Config, Limits};
use storage::sqlite::Options;
use storage::{DeadReason, Port, Request, Sidecar, SqliteStore, Waker};

struct Shard {
    port: Port,
    wakes: Receiver<()>,
}

impl Shard {
    /// The reply to `request`; a store may report a change once too often.
    fn ask(&mut self, request: Request) -> String {
        self.port.submit(request).expect("room in the queue");
        loop {
            let word = self.next();
            if word != "changed" {
                return word;
            }
        }
    }

    fn next(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.port.try_recv() {
                Some(reply) => return word(&reply),
                None => self.wakes.recv_deadline(deadline).expect("a reply in time"),
            }
        }
    }

    /// The next replies up to `last`, that included.
    fn until(&mut self, last: &str) -> Vec<String> {
        let mut words = vec![self.next()];
        while words.last().is_some_and(|word| word != last) {
            words.push(self.next());
        }
        words
    }
}

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, Options::default()).expect("a database")
}

fn start(path: &Path) -> (Sidecar, Shard) {
    let (woken, wakes) = unbounded();
    let waker: Waker = Box::new(move || {
        let _ = woken.send(());
    });
    let authenticators: Vec<Box<dyn Authenticator>> =
        vec![Box::new(Local::new(Box::new(open(path))))];
    let config = Config {
        store: Box::new(open(path)),
        open_ids: None,
        authenticators: vec![authenticators],
        group_sources: Vec::new(),
        limits: Limits { change_poll: Duration::from_millis(5), ..Limits::default() },
    };
    let (sidecar, mut ports) = Sidecar::start(config, vec![waker]).expect("threads");
    (sidecar, Shard { port: ports.remove(0), wakes })
}

fn new_user(id: u32, name: &str, password: &str) -> NewUser {
    NewUser {
        key: user(id),
        name: name.as_bytes().into(),
        password_hash: hash_password(password.as_bytes()),
        phone: None,
    }
}

#[test]
fn rows_survive_a_restart_of_the_sidecar() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ringpost.db");
    let (sidecar, mut shard) = start(&path);
    for seq in 1..=50 {
        shard.port.submit(append(7, seq)).expect("room");
    }
    assert_eq!(shard.until("appended 7 50").len(), 50);
    shard.port.submit(delete(7, 1)).expect("room");
    assert!(sidecar.stop(PATIENCE));

    let (sidecar, mut shard) = start(&path);
    let expected = format!("rows 7 {:?}", (2..=50).collect::<Vec<u64>>());
    assert_eq!(shard.ask(read(7)), expected);
    assert!(sidecar.stop(PATIENCE));
}

#[test]
fn what_the_command_line_changes_is_seen_by_shards_and_logins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ringpost.db");
    let (sidecar, mut shard) = start(&path);
    let login = |shard: &mut Shard, token, password| {
        shard.port.submit(Request::Auth(auth(token, "alice", password))).expect("room");
    };
    login(&mut shard, 1, "old");
    assert_eq!(shard.next(), "auth 1 Denied");

    let mut cli = open(&path);
    cli.add_user(new_user(7, "alice", "old")).unwrap();
    shard.until("changed");
    login(&mut shard, 2, "old");
    assert_eq!(shard.until("auth 2 Pass(7)").last().unwrap(), "auth 2 Pass(7)");

    // The cached login of a deleted user ends with the change.
    cli.delete_user(user(7)).unwrap();
    shard.until("changed");
    login(&mut shard, 3, "old");
    assert!(shard.until("auth 3 Denied").iter().all(|word| !word.contains("auth 3 Pass")));

    let group = GroupKey { tenant: TenantId(0), id: GroupId(12) };
    assert_eq!(shard.ask(Request::Members { group }), "members 12 0");
    let members = vec![UserId(1), UserId(2)];
    cli.create_group(&NewGroup { key: group, members, ..NewGroup::default() }).unwrap();
    shard.until("changed");
    assert_eq!(shard.ask(Request::Members { group }), "members 12 2");
    assert!(sidecar.stop(PATIENCE));
}

#[test]
fn a_dead_letter_put_back_is_announced_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ringpost.db");
    let (sidecar, mut shard) = start(&path);
    assert_eq!(shard.ask(append(7, 1)), "appended 7 1");
    let dead = Request::DeadLetter { user: user(7), seq: 1, reason: DeadReason::Poison };
    shard.port.submit(dead).expect("room");
    assert_eq!(shard.ask(read(7)), "rows 7 []");
    let mut cli = open(&path);
    let ids: Vec<i64> = cli.dead_letters(0, 10).unwrap().iter().map(|letter| letter.id).collect();
    cli.requeue(&ids).unwrap();
    assert_eq!(shard.until("requeued 7").last().unwrap(), "requeued 7");
    shard.port.submit(read(7)).expect("room");
    assert!(shard.until("rows 7 [1]").len() <= 2);
    assert!(sidecar.stop(PATIENCE));
}
