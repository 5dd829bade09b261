//! Which engine runs: the ring, or epoll where rings are refused, chosen, said and measured.

mod common;

use std::collections::BTreeMap;
use std::thread;

use codec::PublishKind::User;
use common::{Gateway, Setup, Site, Want, id};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// Runs `what` on a thread whose programs may not have a ring, as in a container with the default
/// profile.
fn without_io_uring<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    without(libc::SYS_io_uring_setup, what)
}

fn without<T: Send>(call: libc::c_long, what: impl FnOnce() -> T + Send) -> T {
    let refused = BTreeMap::from([(call, Vec::new())]);
    let refusal = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into().expect("an architecture with filters");
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, refusal, arch);
    let program: BpfProgram = filter.and_then(TryInto::try_into).expect("a filter");
    thread::scope(|scope| {
        let filtered = scope.spawn(|| {
            apply_filter(&program).expect("a thread may give up what it can do");
            what()
        });
        filtered.join().expect("what was tried without io_uring")
    })
}

fn engine(gateway: &Gateway) -> [u64; 3] {
    [
        gateway.metric("ringpost_io_engine{engine=\"uring\"}"),
        gateway.metric("ringpost_io_engine{engine=\"epoll\"}"),
        gateway.metric("ringpost_io_engine_fallback"),
    ]
}

/// Goal: a refusal costs a warning and a metric, no more. Method: two shards, so that one of the
/// logins at least is handed over to another epoll set.
#[test]
fn auto_takes_epoll_where_io_uring_is_refused_and_says_so_once() {
    let setup = Setup::new().shards(2).set("node.io", "\"auto\"");
    let gateway = without_io_uring(|| setup.start());
    let log = gateway.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!(
        matches!(warnings[..], [one] if one.contains("running on epoll instead of io_uring: \
        io_uring is refused") && one.contains("Fix: allow io_uring_setup")),
        "{log}"
    );
    assert_eq!(engine(&gateway), [0, 1, 1]);
    let mut clients: Vec<_> = (1..=6).map(|user| gateway.login(user)).collect();
    for user in 0..6_u32 {
        let to = (user + 1) % 6;
        clients[user as usize].publish(Want::User(to + 1), id(user), "by epoll");
        clients[to as usize].take_push(id(user), "by epoll");
        clients[user as usize].expect_ack(User, id(user));
    }
    let (status, _) = gateway.stop();
    assert!(status.success(), "{status}");
}

#[test]
fn any_refused_call_of_io_uring_is_noticed_before_a_shard_needs_it() {
    for call in [libc::SYS_io_uring_register, libc::SYS_io_uring_enter] {
        let setup = Setup::new().set("node.io", "\"auto\"");
        let gateway = without(call, || setup.start());
        assert_eq!(engine(&gateway), [0, 1, 1], "call {call}");
    }
}

#[test]
fn a_ring_is_taken_where_there_is_one_and_epoll_where_it_is_wanted() {
    let start = |io: &str| Setup::new().set("node.io", format!("\"{io}\"")).start();
    assert_eq!(engine(&start("auto")), [1, 0, 0]);
    let gateway = start("epoll");
    assert_eq!(engine(&gateway), [0, 1, 0]);
    assert!(!gateway.log().contains("WARN"), "nothing is wrong with what was asked for");
    gateway.login(1).note_to_self(1, id(1), "by epoll");
}

#[test]
fn insisting_on_a_refused_ring_fails_with_the_cause_and_the_fix() {
    let site = Site::new(Setup::new().set("node.io", "\"uring\""));
    let output = without_io_uring(|| site.run(&["serve"]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("io_uring is refused") && said.contains("Fix: allow"), "{said}");
}

/// Goal: what epoll cannot hold is refused at the start, in words, not by failing accepts.
#[test]
fn connections_of_all_shards_must_fit_the_open_files_on_epoll() {
    let setup = Setup::new().shards(4).set("node.io", "\"epoll\"");
    // Half of it: what each shard could have on io_uring, but not four of them on epoll.
    let limit = Rlimit { current: Some(10_000), maximum: Some(10_000) };
    setrlimit(Resource::Nofile, limit).expect("less is always allowed");
    let mut site = Site::new(setup.set("limits.connections_per_shard", 5_000));
    let output = site.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("limits.connections_per_shard = 5000"), "{said}");
    assert!(said.contains("all shards share it"), "{said}");
    assert!(site.run(&["doctor"]).status.code() == Some(1));

    site.set("limits.connections_per_shard", 0);
    let gateway = site.start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid()));
    let limits = limits.expect("it runs");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let files: u64 = files.split_whitespace().nth(3).expect("soft").parse().expect("a number");
    let slots = gateway.metric("ringpost_connection_slots");
    assert!(slots < files && slots > files / 2, "{slots} slots, {files} files");
}

#[test]
fn the_doctor_says_what_auto_would_choose() {
    let site = Site::new(Setup::new().set("node.io", "\"auto\""));
    let good = site.good(&["doctor"]);
    assert!(good.contains("ok      engine (node.io)             io_uring"), "{good}");
    let refused = without_io_uring(|| site.good(&["doctor"]));
    let advice = "advice  engine (node.io)             epoll, because io_uring is refused";
    assert!(refused.contains(advice) && refused.contains("fix: allow io_uring_setup"), "{refused}");
}
