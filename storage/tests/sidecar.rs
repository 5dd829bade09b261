//! The sidecar's threads and queues: when replies come, what is bounded, how it stops.
//! Set-up: the store double can stall, so the tests decide what is queued when a batch is taken.

mod doubles;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use codec::{GroupId, GroupKey, Query, TenantId, UserId};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use doubles::{Handle, PATIENCE, append, auth, delete, double, pass, read, user, word};
use storage::auth::Authenticator;
use storage::groups::GroupSource;
use storage::sidecar::{Config, Limits, Observer};
use storage::{
    AuthRequest, AuthVerdict, NameKind, Port, Proof, Reply, Request, Sidecar, StoreError, Waker,
};

struct Bench {
    sidecar: Sidecar,
    observer: Observer,
    shards: Vec<Shard>,
    store: Handle,
}

/// A shard's port, a signal per call of its waker, and their number.
struct Shard {
    port: Port,
    wakes: Receiver<()>,
    woken: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Setup {
    /// One thread and realm each.
    authenticators: Vec<Box<dyn Authenticator>>,
    group_sources: Vec<Box<dyn GroupSource>>,
    limits: Limits,
}

fn start(shards: usize, setup: Setup) -> Bench {
    let (store, handle) = double();
    let mut wakers: Vec<Waker> = Vec::new();
    let mut signals = Vec::new();
    for _ in 0..shards {
        let (sender, wakes) = unbounded();
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        wakers.push(Box::new(move || {
            count.fetch_add(1, SeqCst);
            let _ = sender.send(());
        }));
        signals.push((wakes, woken));
    }
    let Setup { authenticators, group_sources, limits } = setup;
    let config = Config {
        store: Box::new(store),
        open_ids: None,
        authenticators: authenticators.into_iter().map(|realm| vec![realm]).collect(),
        group_sources,
        limits,
    };
    let (sidecar, ports) = Sidecar::start(config, wakers).expect("threads");
    let observer = sidecar.observer();
    let shard = |(port, (wakes, woken))| Shard { port, wakes, woken };
    let shards = ports.into_iter().zip(signals).map(shard).collect();
    Bench { sidecar, observer, shards, store: handle }
}

impl Shard {
    fn submit(&mut self, request: Request) {
        self.port.submit(request).expect("room in the queue");
    }

    fn login(&mut self, token: u64, name: &str, password: &str) {
        self.submit(Request::Auth(auth(token, name, password)));
    }

    /// The next reply, waiting for the waker in between.
    fn next(&mut self) -> Reply {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(reply) = self.port.try_recv() {
                return reply;
            }
            self.wakes.recv_deadline(deadline).expect("a reply in time");
        }
    }

    fn words(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| word(&self.next())).collect()
    }
}

/// Stalls the store and waits until its thread is inside it.
fn stall(bench: &mut Bench) {
    let before = bench.store.get(|state| state.waiting);
    bench.store.set(|state| state.stalled = true);
    bench.shards[0].submit(delete(9, 9));
    bench.store.wait("the store thread at the gate", |state| state.waiting > before);
}

fn release(bench: &Bench) {
    bench.store.set(|state| state.stalled = false);
}

#[test]
fn replies_come_after_the_commit_in_order_and_each_shard_is_woken_once_per_batch() {
    let mut bench = start(3, Setup::default());
    stall(&mut bench);
    for seq in 1..=100 {
        bench.shards[1].submit(append(1, seq));
        bench.shards[2].submit(append(2, seq));
    }
    bench.shards[1].submit(read(1));
    assert!(bench.shards.iter_mut().all(|shard| shard.port.try_recv().is_none()));
    assert_eq!(bench.shards[1].port.outstanding(), 101);
    release(&bench);
    for shard in [1, 2] {
        let words = bench.shards[shard].words(100);
        let expected: Vec<_> = (1..=100).map(|seq| format!("appended {shard} {seq}")).collect();
        assert_eq!(words, expected);
    }
    let Reply::Rows { result: Ok((rows, false)), .. } = bench.shards[1].next() else {
        panic!("no rows")
    };
    assert_eq!(rows.len(), 100);
    assert_eq!(bench.shards[1].port.outstanding(), 0);
    assert!(bench.sidecar.stop(PATIENCE));
    let commits = bench.store.log().iter().filter(|line| *line == "commit").count();
    assert_eq!(commits, 2, "the stalled batch, and one for all that queued up meanwhile");
    let woken: Vec<_> = bench.shards.iter().map(|shard| shard.woken.load(SeqCst)).collect();
    assert_eq!(woken, [0, 1, 1]);
    let store = bench.observer.snapshot().store;
    assert_eq!((store.batches, store.rows, store.updates, store.reads), (2, 200, 1, 1));
}

#[test]
fn a_full_store_queue_gives_the_request_back_and_nothing_accepted_is_lost() {
    let limits = Limits { store_queue_len_max: 8, ..Limits::default() };
    let mut bench = start(1, Setup { limits, ..Setup::default() });
    stall(&mut bench);
    assert_eq!(bench.shards[0].port.load(), 0.0);
    for seq in 1..=8 {
        bench.shards[0].submit(append(1, seq));
        assert_eq!(bench.shards[0].port.load(), seq as f32 / 8.0);
    }
    let refused = bench.shards[0].port.submit(append(1, 9)).expect_err("full");
    assert!(matches!(&refused, Request::Append(append) if append.seq == 9));
    assert!(bench.shards[0].port.submit(delete(1, 1)).is_err());
    assert_eq!(bench.observer.snapshot().store.queue_len, 8);
    release(&bench);
    let words = bench.shards[0].words(8);
    assert_eq!(words.last().map(String::as_str), Some("appended 1 8"));
    bench.shards[0].submit(refused);
    assert_eq!(bench.shards[0].words(1), ["appended 1 9"]);
    assert!(bench.sidecar.stop(PATIENCE));
}

#[test]
fn replies_outstanding_are_bounded_even_if_the_shard_does_not_take_them() {
    let limits = Limits { outstanding_len_max: 4, ..Limits::default() };
    let mut bench = start(1, Setup { limits, ..Setup::default() });
    for seq in 1..=4 {
        bench.shards[0].submit(append(1, seq));
    }
    bench.store.wait("four rows", |state| state.rows.len() == 4);
    assert!(bench.shards[0].port.submit(append(1, 5)).is_err());
    bench.shards[0].submit(delete(1, 1));
    assert_eq!(bench.shards[0].words(1), ["appended 1 1"]);
    bench.shards[0].submit(append(1, 5));
    assert!(bench.sidecar.stop(PATIENCE));
    assert_eq!(bench.shards[0].words(4).len(), 4);
}

#[test]
fn an_unavailable_store_answers_at_once_and_recovers_by_itself() {
    let mut bench = start(1, Setup::default());
    bench.shards[0].submit(append(1, 1));
    assert_eq!(bench.shards[0].words(1), ["appended 1 1"]);
    bench.store.set(|state| state.down = true);
    bench.shards[0].submit(delete(1, 1));
    bench.shards[0].submit(append(1, 2));
    assert_eq!(bench.shards[0].words(1), ["unavailable 1 2"]);
    let trouble = bench.observer.snapshot().store.trouble;
    assert_eq!(trouble.as_deref(), Some("told to be down"));
    assert!(!bench.store.get(|state| state.rows.is_empty()));
    bench.store.set(|state| state.down = false);
    // No further request: the thread's own timer repeats the delete.
    bench.store.wait("the delete", |state| state.rows.is_empty());
    assert!(bench.sidecar.stop(PATIENCE));
    assert_eq!(bench.observer.snapshot().store.trouble, None);
}

#[test]
fn stop_carries_out_what_was_submitted_and_refuses_what_comes_later() {
    let limits = Limits { batch_len_max: 16, ..Limits::default() };
    let mut bench = start(1, Setup { limits, ..Setup::default() });
    stall(&mut bench);
    for seq in 1..=1000 {
        bench.shards[0].submit(append(1, seq));
    }
    bench.shards[0].submit(delete(1, 500));
    release(&bench);
    assert!(bench.sidecar.stop(PATIENCE));
    assert_eq!(bench.store.get(|state| state.rows.len()), 999);
    assert_eq!(bench.shards[0].words(1000).last().map(String::as_str), Some("appended 1 1000"));
    assert!(bench.shards[0].port.submit(append(1, 1001)).is_err());
    assert!(bench.shards[0].port.try_recv().is_none());
}

#[test]
fn stop_does_not_wait_for_a_stuck_store_beyond_its_limit() {
    let mut bench = start(1, Setup::default());
    stall(&mut bench);
    assert!(!bench.sidecar.stop(Duration::from_millis(10)));
    bench.store.set(|state| state.stalled = false);
}

#[test]
fn a_change_by_another_process_reaches_every_shard_and_drops_cached_logins() {
    let (counting, calls) = Scripted::cached(|_| pass(7));
    let limits = Limits { change_poll: Duration::from_millis(5), ..Limits::default() };
    let authenticators: Vec<Box<dyn Authenticator>> = vec![counting];
    let mut bench = start(2, Setup { authenticators, limits, ..Setup::default() });
    bench.shards[0].login(1, "alice", "secret");
    assert_eq!(bench.shards[0].words(1), ["auth 1 Pass(7)"]);
    bench.store.set(|state| (state.changed, state.requeued) = (true, (0..300).collect()));
    for shard in &mut bench.shards {
        let expected = (0..300).map(|id| format!("requeued {id}"));
        // The requeued come in two polls.
        let expected: Vec<_> = ["changed".to_owned()].into_iter().chain(expected).collect();
        assert_eq!(shard.words(301), expected);
        assert_eq!(shard.port.outstanding(), 0);
    }
    bench.shards[0].login(2, "alice", "secret");
    assert_eq!(bench.shards[0].words(1), ["auth 2 Pass(7)"]);
    assert_eq!(calls.lock().unwrap().len(), 2);
    assert!(bench.sidecar.stop(PATIENCE));
    assert_eq!(bench.observer.snapshot().store.changes, 1);
}

#[test]
fn old_rows_expire_step_by_step_without_a_request() {
    let limits = Limits { change_poll: Duration::from_millis(5), ..Limits::default() };
    let bench = start(1, Setup { limits, ..Setup::default() });
    bench.store.set(|state| state.old = 25);
    bench.store.wait("all old rows", |state| state.old == 0);
    assert!(bench.sidecar.stop(PATIENCE));
    assert_eq!(bench.observer.snapshot().store.expired, 25);
}

/// An authenticator that does what the test says, and writes down the names it was asked for.
struct Scripted<F> {
    verdict: F,
    calls: Arc<Mutex<Vec<String>>>,
    cacheable: bool,
}

type Calls = Arc<Mutex<Vec<String>>>;

impl<F: FnMut(&AuthRequest) -> AuthVerdict + Send + 'static> Scripted<F> {
    fn cached(verdict: F) -> (Box<dyn Authenticator>, Calls) {
        Self::boxed(verdict, true)
    }

    fn boxed(verdict: F, cacheable: bool) -> (Box<dyn Authenticator>, Calls) {
        let calls = Calls::default();
        (Box::new(Self { verdict, calls: Arc::clone(&calls), cacheable }), calls)
    }
}

impl<F: FnMut(&AuthRequest) -> AuthVerdict + Send> Authenticator for Scripted<F> {
    fn authenticate(&mut self, request: &AuthRequest) -> AuthVerdict {
        self.calls.lock().unwrap().push(String::from_utf8_lossy(&request.name).into_owned());
        (self.verdict)(request)
    }

    fn cacheable(&self) -> bool {
        self.cacheable
    }
}

/// Passes everybody but those with the password "wrong", and waits for the test before that if the
/// name is "slow". The first channel says that it waits, the second lets it go on.
fn gated() -> (Box<dyn Authenticator>, Calls, Receiver<()>, Sender<()>) {
    let (entered, at_gate) = unbounded();
    let (open, gate) = unbounded();
    let (authenticator, calls) = Scripted::cached(move |request| {
        if &*request.name == b"slow" {
            let _ = entered.send(());
            gate.recv_timeout(PATIENCE).expect("the test opens the gate");
        }
        match request.proof.secret() {
            b"wrong" => AuthVerdict::Denied,
            b"down" => AuthVerdict::Unavailable,
            _ => pass(7),
        }
    });
    (authenticator, calls, at_gate, open)
}

#[test]
fn only_a_pass_is_cached_and_only_for_the_same_credentials() {
    let (authenticator, calls, _at_gate, _open) = gated();
    let mut bench = start(1, Setup { authenticators: vec![authenticator], ..Setup::default() });
    let shard = &mut bench.shards[0];
    for (token, password) in (0..).zip(["wrong", "wrong", "down", "down", "right", "right"]) {
        shard.login(token, "alice", password);
        shard.next();
    }
    shard.login(6, "alice", "right ");
    shard.next();
    assert_eq!(calls.lock().unwrap().len(), 6);
    let auth = bench.observer.snapshot().auth;
    assert_eq!((auth.passed, auth.denied, auth.unavailable), (3, 2, 2));
    assert_eq!((auth.cache_hits, auth.cache_len), (1, 2));
    assert!(bench.sidecar.stop(PATIENCE));
}

#[test]
fn cached_logins_do_not_wait_behind_slow_ones_and_what_exceeds_the_queue_gets_no_verdict() {
    let (authenticator, _calls, at_gate, open) = gated();
    let limits = Limits { auth_queue_len_max: 2, ..Limits::default() };
    let authenticators = vec![authenticator];
    let mut bench = start(1, Setup { authenticators, limits, ..Setup::default() });
    let shard = &mut bench.shards[0];
    shard.login(1, "alice", "right");
    shard.next();
    shard.login(2, "slow", "right");
    at_gate.recv_timeout(PATIENCE).expect("the authenticator is busy");
    for (token, name) in [(3, "bob"), (4, "carol")] {
        shard.login(token, name, "right");
    }
    // The front takes requests while the authenticator is busy, so there is room soon.
    let deadline = Instant::now() + PATIENCE;
    while shard.port.submit(Request::Auth(auth(5, "dave", "right"))).is_err() {
        assert!(Instant::now() < deadline, "the front is stuck");
        std::thread::yield_now();
    }
    assert_eq!(shard.words(1), ["auth 5 Unavailable"]);
    shard.login(6, "alice", "right");
    assert_eq!(shard.words(1), ["auth 6 Pass(7)"]);
    open.send(()).unwrap();
    let mut rest = shard.words(3);
    rest.sort();
    assert_eq!(rest, [2, 3, 4].map(|token| format!("auth {token} Pass(7)")));
    assert!(bench.sidecar.stop(PATIENCE));
    assert_eq!(bench.observer.snapshot().auth.refused, 1);
}

#[test]
fn without_a_cache_logins_go_straight_to_a_bounded_queue() {
    let (entered, at_gate) = unbounded();
    let (open, gate) = bounded::<()>(0);
    let (authenticator, calls) = Scripted::boxed(
        move |_| {
            let _ = entered.send(());
            let _ = gate.recv_timeout(PATIENCE);
            pass(7)
        },
        false,
    );
    let limits = Limits { auth_queue_len_max: 1, ..Limits::default() };
    let authenticators = vec![authenticator];
    let mut bench = start(1, Setup { authenticators, limits, ..Setup::default() });
    let shard = &mut bench.shards[0];
    shard.login(1, "alice", "secret");
    at_gate.recv_timeout(PATIENCE).expect("the authenticator is busy");
    shard.login(2, "alice", "secret");
    let refused = shard.port.submit(Request::Auth(auth(3, "alice", "secret")));
    assert!(matches!(refused, Err(Request::Auth(request)) if request.proof.secret() == b"secret"));
    drop(open);
    assert_eq!(shard.words(2), ["auth 1 Pass(7)", "auth 2 Pass(7)"]);
    assert_eq!(calls.lock().unwrap().len(), 2);
    assert!(bench.sidecar.stop(PATIENCE));
}

#[test]
fn stop_answers_logins_that_have_not_begun_with_unavailable() {
    let (authenticator, calls, at_gate, open) = gated();
    let mut bench = start(1, Setup { authenticators: vec![authenticator], ..Setup::default() });
    bench.shards[0].login(1, "slow", "right");
    at_gate.recv_timeout(PATIENCE).expect("the authenticator is busy");
    for token in 2..=10 {
        bench.shards[0].login(token, "bob", "right");
    }
    let Bench { sidecar, mut shards, observer, .. } = bench;
    let stopped = std::thread::scope(|scope| {
        let stop = scope.spawn(move || sidecar.stop(PATIENCE));
        // The store thread has gone once the queue refuses: stop has begun.
        while shards[0].port.submit(delete(1, 1)).is_ok() {
            std::thread::yield_now();
        }
        open.send(()).unwrap();
        stop.join().unwrap()
    });
    assert!(stopped);
    let words = shards[0].words(10);
    assert_eq!(words[0], "auth 1 Pass(7)");
    assert!(words[1..].iter().all(|word| word.ends_with("Unavailable")), "{words:?}");
    assert_eq!(*calls.lock().unwrap(), ["slow"]);
    assert_eq!(observer.snapshot().auth.unavailable, 9);
}

#[test]
fn without_authenticators_every_login_is_given_back() {
    let mut bench = start(1, Setup::default());
    assert!(bench.shards[0].port.submit(Request::Auth(auth(1, "alice", "secret"))).is_err());
    assert!(bench.sidecar.stop(PATIENCE));
}

fn members(id: u32) -> Request {
    Request::Members { group: GroupKey { tenant: TenantId(0), id: GroupId(id) } }
}

struct Odd;

impl GroupSource for Odd {
    fn members(&mut self, group: GroupKey) -> Result<Arc<[UserId]>, StoreError> {
        match group.id.0 {
            0 => Err(StoreError::Unavailable),
            1 => Err(StoreError::Full),
            count => Ok((0..count).map(UserId).collect()),
        }
    }

    fn skipped(&self) -> u64 {
        5
    }
}

#[test]
fn members_come_from_the_source_of_their_own_even_while_the_store_is_stuck() {
    let group_sources: Vec<Box<dyn GroupSource>> = vec![Box::new(Odd), Box::new(Odd)];
    let mut bench = start(1, Setup { group_sources, ..Setup::default() });
    stall(&mut bench);
    for id in 0..4 {
        bench.shards[0].submit(members(id));
    }
    let mut words = bench.shards[0].words(4);
    words.sort();
    assert_eq!(words, ["members 0 unavailable", "members 1 full", "members 2 2", "members 3 3"]);
    release(&bench);
    assert!(bench.sidecar.stop(PATIENCE));
    let groups = bench.observer.snapshot().groups;
    assert_eq!((groups.lookups, groups.unavailable, groups.full), (4, 1, 1));
    assert_eq!(groups.members_skipped, 5);
}

#[test]
fn members_come_from_the_store_if_there_is_no_other_source() {
    let mut bench = start(1, Setup::default());
    bench.shards[0].submit(members(4));
    assert_eq!(bench.shards[0].words(1), ["members 4 2"]);
    assert!(bench.sidecar.stop(PATIENCE));
}

#[test]
fn a_changed_group_is_told_to_every_shard_before_the_answer() {
    let mut bench = start(3, Setup::default());
    let join = |token| {
        let (query, binding) = (Query::JoinGroup(Box::from(*b"lobby")), None);
        Request::Query { token, user: user(1), query, binding }
    };
    bench.shards[1].submit(join(5));
    assert_eq!(bench.shards[1].words(2), ["group 9", "answer 5 Done"]);
    assert_eq!(bench.shards[1].port.outstanding(), 0);
    for shard in [0, 2] {
        assert_eq!(bench.shards[shard].words(1), ["group 9"]);
        assert_eq!(bench.shards[shard].port.outstanding(), 0, "news are nobody's reply");
    }
    let what = NameKind::Any;
    let (tenant, name) = (TenantId(0), Box::from(*b"lobby"));
    bench.shards[0].submit(Request::Resolve { token: 6, tenant, name, what });
    assert_eq!(bench.shards[0].port.outstanding(), 1);
    assert_eq!(bench.shards[0].words(1), ["resolved 6 group 9"]);
    assert!(bench.sidecar.stop(PATIENCE));
    let store = bench.observer.snapshot().store;
    assert_eq!((store.queries, store.resolved), (1, 1));
}

#[test]
fn each_realm_has_its_own_authenticator_and_its_own_cached_logins() {
    let (first, first_calls) = Scripted::cached(|_| pass(1));
    let (second, second_calls) = Scripted::boxed(|_| pass(2), false);
    let (store, _handle) = double();
    let (woken, wakes) = unbounded();
    let waker: Waker = Box::new(move || {
        let _ = woken.send(());
    });
    let config = Config {
        store: Box::new(store),
        open_ids: None,
        authenticators: vec![vec![first, second]],
        group_sources: Vec::new(),
        limits: Limits::default(),
    };
    let (sidecar, mut ports) = Sidecar::start(config, vec![waker]).expect("threads");
    let woken = Arc::default();
    let mut shard = Shard { port: ports.remove(0), wakes, woken };
    let mut login = |token, realm| {
        let request = AuthRequest { realm, ..auth(token, "alice", "secret") };
        shard.submit(Request::Auth(request));
        shard.words(1).remove(0)
    };
    for token in 0..2 {
        assert_eq!(login(token, 0), format!("auth {token} Pass(1)"));
        assert_eq!(login(token, 1), format!("auth {token} Pass(2)"));
    }
    assert_eq!(login(9, 2), "auth 9 Unavailable", "no such realm");
    assert_eq!(first_calls.lock().unwrap().len(), 1);
    assert_eq!(second_calls.lock().unwrap().len(), 2, "what may not be cached is asked again");
    assert!(sidecar.stop(PATIENCE));
}

#[test]
fn a_token_is_asked_for_each_time() {
    let (authenticator, calls) = Scripted::cached(|_| pass(7));
    let mut bench = start(1, Setup { authenticators: vec![authenticator], ..Setup::default() });
    for token in 0..2 {
        let proof = Proof::Token(Box::from(*b"secret"));
        let request = AuthRequest { proof, ..auth(token, "7", "") };
        bench.shards[0].submit(Request::Auth(request));
        assert_eq!(bench.shards[0].words(1), [format!("auth {token} Pass(7)")]);
    }
    assert_eq!(calls.lock().unwrap().len(), 2);
    assert!(bench.sidecar.stop(PATIENCE));
}
