//! Goal: a gateway that stands still for seconds (a busy machine, a stopped process, a paused
//! guest) holds it against nobody: what came meanwhile is read before anything is repeated, stored
//! or closed for want of it.
//!
//! Method: SIGSTOP and SIGCONT, and answers of clients that wait in their sockets meanwhile.

mod common;
mod fault;

use std::time::{Duration, Instant};

use codec::PublishKind;
use common::{Client, Gateway, Seen, Setup, Want, eventually, id};
use fault::Process;

/// Longer than every deadline of [`setup`].
const STALL: Duration = Duration::from_millis(2_600);

fn setup() -> Setup {
    Setup::new().set("delivery.persist_after_ms", 1_900).set("delivery.retry_interval_ms", 2_000)
}

/// The gateway stands still while `answer` is given, and for a while after.
fn stall(gateway: &Gateway, answer: impl FnOnce()) {
    let process = Process(gateway.pid());
    process.signal("STOP");
    answer();
    let start = Instant::now();
    eventually("the stall is over", || start.elapsed() >= STALL);
    process.signal("CONT");
}

fn assert_nobody_suffered(gateway: &Gateway) {
    assert_eq!(gateway.metric("ringpost_retries_total"), 0, "pushes repeated");
    for reason in ["ack_timeout", "slow_consumer"] {
        let closed = format!("ringpost_closed_total{{shard=\"0\",reason=\"{reason}\"}}");
        assert_eq!(gateway.metric(&closed), 0, "{reason}");
    }
}

#[test]
fn acknowledgements_that_came_during_a_stall_are_read_before_anything_is_repeated_or_stored() {
    let gateway = setup().start();
    let mut ann = gateway.login(1);
    let mut crowd: Vec<Client> = (2..22).map(|user| gateway.login(user)).collect();
    for user in 2..22 {
        ann.publish(Want::User(user), id(user), "before the stall");
    }
    for (client, user) in crowd.iter_mut().zip(2..) {
        client.expect_push(id(user), "before the stall");
    }
    // What was said while a login still looked for older messages is in the store, rightly.
    let appended = gateway.metric("ringpost_appends_total");
    stall(&gateway, || {
        for (client, user) in crowd.iter_mut().zip(2..) {
            client.ack(PublishKind::User, id(user));
        }
    });
    // They are read in any order.
    let mut missing: Vec<_> = (2..22).map(id).collect();
    while !missing.is_empty() {
        let Seen::Ack(PublishKind::User, safe) = ann.next() else { panic!("not an ack") };
        let at = missing.iter().position(|id| *id == safe).expect("each once");
        missing.swap_remove(at);
    }
    assert_nobody_suffered(&gateway);
    assert_eq!(gateway.metric("ringpost_appends_total"), appended, "stored for nothing");
}
