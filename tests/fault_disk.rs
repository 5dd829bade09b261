//! Goal: while the store cannot commit, nothing that needs it is acknowledged, everything else goes
//! on, and it recovers by itself.
//!
//! Method: the data folder on a file system of its own that is filled and freed, and another
//! process that holds the database's write lock. Needs the right to mount, and `sqlite3`.

mod common;
mod fault;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use codec::{MessageId, PublishKind};
use common::{Client, Gateway, SILENCE, Seen, Setup, Site, Want, eventually, id};
use fault::{Healthy, collect, resend_until_safe};

/// Somebody who is never there while the store is out of order.
const OFFLINE: u32 = 9;

#[test]
fn a_full_disk_acknowledges_nothing_it_does_not_hold_and_recovers_when_space_is_freed() {
    let site = Site::new(Setup::new().shards(2));
    let Some(disk) = SmallDisk::mount(&site.path("data")) else {
        eprintln!("NOT TESTED: a full disk. This host does not let us mount a tmpfs.");
        return;
    };
    let gateway = site.start();
    let mut ann = gateway.login(1);
    ann.publish_safely(Want::User(OFFLINE), id(1), "while there is room");
    let healthy = Healthy::talk(&gateway);
    disk.fill();
    let mut safe = vec![id(1)];
    // What the log still has room for may be acknowledged; 6 MiB it has not.
    let refused = publish_until_refused(&gateway, &mut ann, &mut safe);
    while_the_store_is_down(&gateway, "ringpost_appends_unavailable_total");
    disk.free();
    for message in &refused {
        resend_until_safe(&mut ann, Want::User(OFFLINE), *message, &body(message));
    }
    safe.extend(refused);
    healthy.assert_unaffected();
    // What was acknowledged around the full disk survives what comes next.
    let gateway = gateway.kill().start();
    let seen = collect(&mut gateway.login(OFFLINE), &safe);
    for (message, said) in seen.iter().filter(|(message, _)| *message != id(1)) {
        assert!(said == body(message).as_bytes(), "{message:?} was changed on its way");
    }
    drop(gateway);
}

#[test]
fn a_locked_database_acknowledges_nothing_and_recovers_when_the_lock_is_given_up() {
    let gateway = Setup::new().shards(2).start();
    let mut ann = gateway.login(1);
    ann.publish_safely(Want::User(OFFLINE), id(1), "before");
    let healthy = Healthy::talk(&gateway);
    let lock = Lock::of(&gateway.site().database());
    ann.publish(Want::User(OFFLINE), id(2), &body(&id(2)));
    eventually("the failure is counted", || {
        gateway.metric("ringpost_appends_unavailable_total") > 0
    });
    ann.expect_silence();
    while_the_store_is_down(&gateway, "ringpost_appends_unavailable_total");
    // What is in the store can be read all the same.
    let mut offline = gateway.login(OFFLINE);
    offline.expect_push(id(1), "before");
    offline.ack(PublishKind::User, id(1));
    offline.close();
    lock.give_up();
    resend_until_safe(&mut ann, Want::User(OFFLINE), id(2), &body(&id(2)));
    healthy.assert_unaffected();
    eventually("the delete that had to wait is done", || {
        gateway.metric("ringpost_store_retained") == 0
    });
    let gateway = gateway.kill().start();
    let mut offline = gateway.login(OFFLINE);
    offline.expect_push(id(2), &body(&id(2)));
    offline.ack(PublishKind::User, id(2));
    offline.expect_silence();
}

/// Large messages to somebody offline until some are not acknowledged; gives those.
fn publish_until_refused(
    gateway: &Gateway,
    client: &mut Client,
    safe: &mut Vec<MessageId>,
) -> Vec<MessageId> {
    let unavailable = || gateway.metric("ringpost_appends_unavailable_total");
    let mut refused = Vec::new();
    for number in 100..300 {
        let message = id(number);
        client.publish(Want::User(OFFLINE), message, &body(&message));
        let mut acked = false;
        eventually("an acknowledgement, or a failure that is counted", || {
            acked |= client.see(Duration::from_millis(50))
                == Some(Seen::Ack(PublishKind::User, message));
            acked || unavailable() > refused.len() as u64
        });
        match acked {
            true => safe.push(message),
            false => refused.push(message),
        }
        if refused.len() == 5 {
            client.expect_silence();
            return refused;
        }
    }
    panic!("6 MiB are acknowledged on a disk that is full");
}

/// What must hold while nothing can be stored: logins, deliveries to those who answer, no
/// acknowledgement for a silent recipient's message before he has it, and a figure that says so.
fn while_the_store_is_down(gateway: &Gateway, failures: &str) {
    let (mut ben, mut carol) = (gateway.login(2), gateway.login(3));
    ben.publish(Want::User(3), id(50), "carol answers late");
    carol.expect_push(id(50), "carol answers late");
    let before = gateway.metric(failures);
    eventually("her silence would be stored", || gateway.metric(failures) > before);
    assert_eq!(ben.see(SILENCE), None, "acknowledged, and nobody has it");
    carol.ack(PublishKind::User, id(50));
    ben.expect_ack(PublishKind::User, id(50));
    assert_eq!(gateway.get("/healthz").0, 200);
}

/// 30,000 bytes that tell the message from every other.
fn body(message: &MessageId) -> String {
    let text = std::str::from_utf8(message.as_bytes()).expect("our ids are text");
    text.repeat(30_000 / text.len())
}

/// A file system of 8 MiB; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`: we may not mount.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir(at).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m,mode=700", "ringpost-test"]).arg(at);
        let mounted = mount.status().is_ok_and(|status| status.success());
        mounted.then(|| Self(at.to_owned()))
    }

    /// Takes every block that is free.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).expect("a file");
        let block = [0x55; 4096];
        while file.write_all(&block).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a gateway may still be on its way out.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Another process in the middle of a write transaction.
struct Lock(Child);

impl Lock {
    fn of(database: &Path) -> Self {
        let mut command = Command::new("sqlite3");
        command.arg(database).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("sqlite3 is installed");
        let stdin = child.stdin.as_mut().expect("a pipe");
        let order = b".timeout 5000\nBEGIN EXCLUSIVE;\nSELECT 'locked';\n";
        stdin.write_all(order).expect("sqlite3 reads");
        let mut answer = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut answer).expect("sqlite3 answers");
        assert_eq!(answer.trim(), "locked");
        Self(child)
    }

    /// The transaction ends without a change.
    fn give_up(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("our child");
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
