//! The simulated kernel under a small echo server: every promise of the seam, every fault.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::*;
use crate::io::{Completion, Errno, Io, Piece, SendBatch, Slot, Wait};

/// An echo server on [`SimIo`]: the smallest user that keeps the whole contract.
struct Echo {
    io: SimIo,
    conns: BTreeMap<u32, EchoConn>,
    accepts_failed: u32,
    /// Connections arrived with these tokens.
    handed_in: Vec<u64>,
    hand_overs_failed: u32,
}

struct EchoConn {
    slot: Slot,
    queued: Vec<u8>,
    sending: bool,
    ended: bool,
    closing: bool,
}

impl Echo {
    fn new(net: &SimNet, shard: ShardIndex, slots: u32) -> Self {
        let mut io = net.shard(shard, slots, 1);
        io.set_accepting(true);
        Self {
            io,
            conns: BTreeMap::new(),
            accepts_failed: 0,
            handed_in: vec![],
            hand_overs_failed: 0,
        }
    }

    fn turn(&mut self) {
        while let Some(completion) = self.io.next() {
            self.complete(completion);
        }
        let io = &mut self.io;
        for conn in self.conns.values_mut().filter(|conn| !conn.closing) {
            if !conn.sending && !conn.queued.is_empty() && !conn.ended {
                let queued = Piece::Owned(std::mem::take(&mut conn.queued));
                io.send(conn.slot, SendBatch::from_iter([queued]));
                conn.sending = true;
            }
            if conn.ended && !conn.sending {
                conn.closing = true;
                io.close(conn.slot);
            }
        }
        let later = Now(io.now().0 + 1_000_000);
        io.wait(Wait::Until(later));
    }

    fn complete(&mut self, completion: Completion<SimBuf>) {
        match completion {
            Completion::Accepted { slot, .. } => self.begin(slot),
            Completion::HandedIn { slot, token } => {
                self.handed_in.push(token);
                self.begin(slot);
            }
            Completion::AcceptFailed { .. } => self.accepts_failed += 1,
            Completion::Received { slot, buf } => {
                let conn = self.conn(slot);
                conn.queued.extend_from_slice(&buf);
                let live = !conn.closing;
                self.io.recycle(buf);
                if live {
                    self.io.receive(slot);
                }
            }
            Completion::ReceiveEnded { slot, .. } => self.conn(slot).ended = true,
            Completion::Sent { slot, batch, .. } => {
                self.conn(slot).sending &= batch.is_none();
            }
            Completion::SendFailed { slot, .. } => {
                let conn = self.conn(slot);
                (conn.sending, conn.ended) = (false, true);
            }
            Completion::Unsent { .. } => {}
            Completion::HandedOver { slot, result: Ok(()) } | Completion::Closed { slot } => {
                self.conn(slot);
                self.conns.remove(&slot.index);
            }
            Completion::HandedOver { slot, result: Err(_) } => {
                self.hand_overs_failed += 1;
                self.conn(slot).closing = false;
                self.io.receive(slot);
            }
            Completion::Dialed { .. } => unreachable!("nobody dials"),
        }
    }

    fn begin(&mut self, slot: Slot) {
        let conn = EchoConn { slot, queued: vec![], sending: false, ended: false, closing: false };
        assert!(self.conns.insert(slot.index, conn).is_none(), "the slot was in use");
        self.io.receive(slot);
    }

    /// Panics if the completion is of another tenant of the slot.
    fn conn(&mut self, slot: Slot) -> &mut EchoConn {
        let conn = self.conns.get_mut(&slot.index).expect("a completion of a free slot");
        assert_eq!(conn.slot, slot, "a completion of another generation");
        conn
    }
}

/// Runs until `done` or `limit_ms` of virtual time.
fn run(net: &SimNet, shards: &mut [Echo], limit_ms: u64, mut done: impl FnMut() -> bool) {
    let end = net.now().plus_ms(limit_ms);
    while net.now() < end && !done() {
        for index in net.runnable() {
            shards[usize::from(index)].turn();
        }
        net.advance(end);
    }
}

fn drain(net: &SimNet, id: ClientId, into: &mut Vec<u8>) {
    into.extend(net.client_recv(id));
}

/// Bytes that are different everywhere.
fn pattern(len: usize, salt: u64) -> Vec<u8> {
    let mut rng = Rng::new(salt);
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

/// `clients` clients send some of `len` bytes at random moments and get all of it back.
fn echo_run(seed: u64, plan: FaultPlan, clients: usize, len: usize) -> (SimNet, Vec<Vec<u8>>) {
    let net = SimNet::new(seed, plan);
    let mut shards = [Echo::new(&net, 0, 64), Echo::new(&net, 1, 64)];
    let mut rng = net.fork_rng();
    let ids: Vec<_> = (0..clients).map(|_| net.connect(0)).collect();
    let mut sent = vec![0; clients];
    let mut got = vec![Vec::new(); clients];
    let end = net.now().plus_ms(60_000);
    while net.now() < end && !done(&net, &ids, &got, len) {
        for index in net.runnable() {
            shards[usize::from(index)].turn();
        }
        let who = rng.index(clients);
        let upto = len.min(sent[who] + rng.index(400));
        net.client_send(ids[who], &pattern(len, who as u64)[sent[who]..upto]);
        sent[who] = upto;
        for (id, got) in ids.iter().zip(&mut got) {
            drain(&net, *id, got);
        }
        net.advance(net.now().plus_ms(5));
    }
    (net, got)
}

fn done(net: &SimNet, ids: &[ClientId], got: &[Vec<u8>], len: usize) -> bool {
    ids.iter().zip(got).all(|(id, got)| got.len() == len || net.client_was_reset(*id))
}

fn hostile() -> FaultPlan {
    FaultPlan {
        late_ppm: 50_000,
        late_us: 50_000,
        short_receive_ppm: 300_000,
        short_send_ppm: 300_000,
        late_sent_ppm: 200_000,
        buffers: 2,
        buffer_len: 100,
        send_buffer_len: 300,
        client_buffer_len: 200,
        ..FaultPlan::default()
    }
}

#[test]
fn same_seed_same_run() {
    let hash = |seed| echo_run(seed, hostile(), 8, 3_000).0.trace_hash();
    assert_eq!(hash(1), hash(1));
    assert_eq!(hash(2), hash(2));
    assert_ne!(hash(1), hash(2));
}

#[test]
fn each_connection_keeps_its_order_under_every_delay() {
    for seed in 0..20 {
        let (_, got) = echo_run(seed, hostile(), 6, 2_000);
        for (who, got) in got.iter().enumerate() {
            assert!(*got == pattern(2_000, who as u64), "seed {seed}, client {who}");
        }
    }
}

#[test]
fn connections_overtake_each_other() {
    let net = SimNet::new(3, FaultPlan::default());
    let mut shards = [Echo::new(&net, 0, 64)];
    let ids: Vec<_> = (0..20).map(|_| net.connect(0)).collect();
    for id in &ids {
        net.client_send(*id, b"x");
    }
    let mut order = Vec::new();
    while order.len() < ids.len() {
        run(&net, &mut shards, 1, || false);
        while let Some(id) = net.touched_client() {
            assert_eq!(net.client_recv(id), b"x");
            order.push(id);
        }
    }
    assert!(!order.is_sorted(), "all answers came in the order of the requests");
}

#[test]
fn every_fault_shows_in_the_counts() {
    let mut plan = hostile();
    plan.reset_ppm = 3_000;
    plan.accept_fails_ppm = 300_000;
    let (net, got) = echo_run(7, plan, 20, 3_000);
    let stats = net.stats();
    for (what, count) in [
        ("late", stats.late),
        ("short receive", stats.short_receives),
        ("short send", stats.short_sends),
        ("late sent", stats.late_sents),
        ("blocked send", stats.blocked_sends),
        ("reset", stats.resets),
        ("failed accept", stats.accepts_failed),
        ("empty pool", stats.starved),
    ] {
        assert!(count > 0, "no {what} in {stats:?}");
    }
    for (who, got) in got.iter().enumerate() {
        assert!(pattern(3_000, who as u64).starts_with(got), "client {who} read other bytes");
    }
}

#[test]
fn frozen_client_stops_the_sends_and_nothing_else() {
    let plan = FaultPlan { send_buffer_len: 500, client_buffer_len: 500, ..FaultPlan::default() };
    let net = SimNet::new(5, plan);
    let mut shards = [Echo::new(&net, 0, 8)];
    let (slow, quick) = (net.connect(0), net.connect(0));
    net.client_freeze(slow);
    net.client_send(slow, &pattern(5_000, 1));
    run(&net, &mut shards, 50, || false);
    assert_eq!(net.stats().sent_bytes, 1_000, "two full buffers");
    assert_eq!(net.client_recv(slow), b"", "a frozen client reads nothing");

    net.client_send(quick, b"hello");
    run(&net, &mut shards, 50, || false);
    assert_eq!(net.client_recv(quick), b"hello");

    net.client_unfreeze(slow);
    let mut got = Vec::new();
    run(&net, &mut shards, 500, || {
        drain(&net, slow, &mut got);
        got.len() == 5_000
    });
    assert!(got == pattern(5_000, 1));
}

#[test]
fn unsent_counts_what_a_frozen_client_left_in_the_socket() {
    let plan = FaultPlan { send_buffer_len: 500, client_buffer_len: 100, ..FaultPlan::default() };
    let net = SimNet::new(6, plan);
    let mut io = net.shard(0, 4, 1);
    let (id, slot) = accept_one(&net, &mut io);
    net.client_freeze(id);
    io.send(slot, SendBatch::from_iter([Piece::Shared(Arc::from(&[7_u8; 300][..]))]));
    let sent = wait_for(&net, &mut io, |c| matches!(c, Completion::Sent { .. }));
    assert!(matches!(sent, Completion::Sent { bytes: 300, batch: Some(_), .. }));
    settle(&net, 10);
    io.unsent(slot);
    let unsent = wait_for(&net, &mut io, |c| matches!(c, Completion::Unsent { .. }));
    assert!(matches!(unsent, Completion::Unsent { bytes: Some(200), .. }), "{unsent:?}");
}

#[test]
fn hand_over_keeps_the_bytes_that_nobody_has_read() {
    for seed in 0..50 {
        let net = SimNet::new(seed, FaultPlan::default());
        let mut io = net.shard(0, 4, 1);
        let (id, slot) = accept_one(&net, &mut io);
        let mut shards = [Echo::new(&net, 1, 4)];
        net.client_send(id, b"before ");
        net.advance(net.now().plus_ms(1));
        io.hand_over(slot, 1, 99);
        net.client_send(id, b"after");
        let (mut got, mut over) = (Vec::new(), 0);
        let end = net.now().plus_ms(100);
        while net.now() < end {
            for index in net.runnable() {
                match index {
                    0 => {
                        while let Some(completion) = io.next() {
                            let ok =
                                matches!(completion, Completion::HandedOver { result: Ok(()), .. });
                            over += u32::from(ok);
                        }
                        io.wait(Wait::Until(end));
                    }
                    _ => shards[0].turn(),
                }
            }
            drain(&net, id, &mut got);
            net.advance(end);
        }
        assert_eq!((over, &shards[0].handed_in[..]), (1, &[99][..]), "seed {seed}");
        assert_eq!(got, b"before after", "seed {seed}");
        assert_eq!(net.slots_used(0), 0);
    }
}

#[test]
fn failed_hand_over_leaves_the_connection_where_it_was() {
    let plan = FaultPlan { hand_over_fails_ppm: 1_000_000, ..FaultPlan::default() };
    let net = SimNet::new(8, plan);
    let mut io = net.shard(0, 4, 1);
    let (id, slot) = accept_one(&net, &mut io);
    park(&mut net.shard(1, 4, 0));
    io.hand_over(slot, 1, 5);
    let over = wait_for(&net, &mut io, |c| matches!(c, Completion::HandedOver { .. }));
    assert!(matches!(over, Completion::HandedOver { result: Err(_), .. }));
    net.client_send(id, b"still here");
    io.receive(slot);
    let received = wait_for(&net, &mut io, |c| matches!(c, Completion::Received { .. }));
    if let Completion::Received { buf, .. } = received {
        assert_eq!(&buf[..], b"still here");
        io.recycle(buf);
    }
}

#[test]
fn full_tables_lose_the_client_and_fail_the_hand_over() {
    let net = SimNet::new(9, FaultPlan::default());
    let mut io = net.shard(0, 1, 1);
    park(&mut net.shard(1, 0, 0));
    let (_, slot) = accept_one(&net, &mut io);
    let second = net.connect(0);
    let failed = wait_for(&net, &mut io, |c| matches!(c, Completion::AcceptFailed { .. }));
    assert!(matches!(failed, Completion::AcceptFailed { error: Errno(libc::ENFILE), .. }));
    park(&mut io);
    settle(&net, 10);
    assert!(net.client_was_reset(second));
    io.hand_over(slot, 1, 1);
    let over = wait_for(&net, &mut io, |c| matches!(c, Completion::HandedOver { .. }));
    assert!(matches!(over, Completion::HandedOver { result: Err(_), .. }));
}

#[test]
fn withdrawn_accepts_leave_clients_in_the_backlog() {
    let net = SimNet::new(10, FaultPlan::default());
    let mut io = net.shard(0, 4, 1);
    let id = net.connect(0);
    net.client_send(id, b"early");
    park(&mut io);
    settle(&net, 20);
    assert!(io.next().is_none(), "accepts are off until they are armed");
    io.set_accepting(true);
    wait_for(&net, &mut io, |c| matches!(c, Completion::Accepted { .. }));
}

#[test]
fn close_gives_everything_back_before_its_completion() {
    for seed in 0..50 {
        let plan = FaultPlan { send_buffer_len: 10, client_buffer_len: 10, ..FaultPlan::default() };
        let net = SimNet::new(seed, plan);
        let mut io = net.shard(0, 1, 1);
        let (id, slot) = accept_one(&net, &mut io);
        net.client_freeze(id);
        io.receive(slot);
        io.send(slot, SendBatch::from_iter([Piece::Owned(vec![1; 100])]));
        net.advance(net.now().plus_ms(1));
        io.close(slot);
        let mut given_back = 0;
        let end = net.now().plus_ms(1_000);
        loop {
            match next_completion(&net, &mut io, end) {
                Completion::SendFailed { .. } => given_back += 1,
                Completion::Closed { slot: closed } => {
                    assert_eq!(closed, slot);
                    break;
                }
                Completion::Sent { batch: None, .. } | Completion::ReceiveEnded { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(given_back, 1, "the send ends before the close");
        assert!(io.next().is_none(), "nothing comes after the close");
        net.connect(0);
        let again = wait_for(&net, &mut io, |c| matches!(c, Completion::Accepted { .. }));
        let Completion::Accepted { slot: next, .. } = again else { unreachable!() };
        assert_eq!((next.index, next.generation), (slot.index, slot.generation + 1));
    }
}

#[test]
fn a_reset_takes_the_end_of_the_stream_and_leaves_no_gap() {
    let sent = pattern(1_000, 4);
    let mut short = 0;
    for seed in 0..200 {
        let net = SimNet::new(seed, FaultPlan { buffer_len: 150, ..FaultPlan::default() });
        let mut io = net.shard(0, 1, 1);
        let (id, slot) = accept_one(&net, &mut io);
        // Bytes for a client that has closed are answered by a reset while its own are under way.
        io.send(slot, SendBatch::from_iter([Piece::Owned(vec![1; 100])]));
        for chunk in sent.chunks(100) {
            net.client_send(id, chunk);
        }
        net.client_close(id);
        let (mut got, end) = (Vec::new(), net.now().plus_ms(1_000));
        io.receive(slot);
        loop {
            match next_completion(&net, &mut io, end) {
                Completion::Received { buf, .. } => {
                    got.extend_from_slice(&buf);
                    io.recycle(buf);
                    io.receive(slot);
                }
                Completion::ReceiveEnded { .. } => break,
                _ => {}
            }
        }
        assert!(sent.starts_with(&got), "seed {seed}: a gap in what was received");
        short += u32::from(got.len() < sent.len());
    }
    assert!(short > 0, "no reset came in time");
}

#[test]
fn the_goodbye_arrives_before_the_end_of_the_stream() {
    let net = SimNet::new(11, FaultPlan::default());
    let mut io = net.shard(0, 1, 1);
    let (id, slot) = accept_one(&net, &mut io);
    io.send(slot, SendBatch::from_iter([Piece::Owned(b"bye".to_vec())]));
    wait_for(&net, &mut io, |c| matches!(c, Completion::Sent { .. }));
    io.close(slot);
    wait_for(&net, &mut io, |c| matches!(c, Completion::Closed { .. }));
    settle(&net, 10);
    assert!(!net.client_eof(id), "there is something to read first");
    assert_eq!(net.client_recv(id), b"bye");
    while !net.client_eof(id) {
        net.advance(net.now().plus_ms(10));
    }
}

#[test]
fn crash_ends_every_connection_and_the_net_lives_on() {
    let net = SimNet::new(12, FaultPlan::default());
    let mut shards = vec![Echo::new(&net, 0, 8), Echo::new(&net, 1, 8)];
    let ids: Vec<_> = (0..6).map(|_| net.connect(0)).collect();
    for id in &ids {
        net.client_send(*id, &pattern(500, 0));
    }
    run(&net, &mut shards, 1, || false);
    let before = net.now();
    net.crash_all();
    drop(shards);
    let refused = net.connect(0);
    while !ids.iter().all(|id| net.client_was_reset(*id)) || !net.client_was_reset(refused) {
        net.advance(net.now().plus_ms(10));
    }
    assert!(net.now() > before);

    let mut shards = vec![Echo::new(&net, 0, 8), Echo::new(&net, 1, 8)];
    let id = net.connect(0);
    net.client_send(id, b"again");
    let mut got = Vec::new();
    run(&net, &mut shards, 100, || {
        drain(&net, id, &mut got);
        got == b"again"
    });
    assert_eq!(got, b"again");
}

#[test]
fn doorbell_ends_another_shards_wait() {
    let net = SimNet::new(13, FaultPlan::default());
    let (mut a, mut b) = (net.shard(0, 1, 0), net.shard(1, 1, 0));
    a.wait(Wait::Until(Now(u64::MAX)));
    b.wait(Wait::Until(Now(u64::MAX)));
    net.advance(Now(1_000));
    assert!(net.runnable().is_empty());
    a.doorbell(1);
    while net.runnable().is_empty() {
        net.advance(Now(u64::MAX - 1));
    }
    assert_eq!(net.runnable(), [1]);
    b.wait(Wait::Until(Now(5_000)));
    net.advance(Now(4_000));
    assert!(net.runnable().is_empty());
    net.advance(Now(5_000));
    assert_eq!(net.runnable(), [1], "the deadline of the wait");
}

#[test]
fn breaches_of_the_contract_panic() {
    type Breach = fn(&SimNet, &mut SimIo, Slot);
    let breaches: [(&str, Breach); 8] = [
        ("two receives", |_, io, slot| {
            io.receive(slot);
            io.receive(slot);
        }),
        ("two sends", |_, io, slot| {
            io.send(slot, SendBatch::from_iter([Piece::Owned(vec![1])]));
            io.send(slot, SendBatch::from_iter([Piece::Owned(vec![1])]));
        }),
        ("an empty send", |_, io, slot| io.send(slot, SendBatch::default())),
        ("two closes", |_, io, slot| {
            io.close(slot);
            io.close(slot);
        }),
        ("a receive on another generation", |_, io, slot| {
            io.receive(Slot { generation: slot.generation + 1, ..slot });
        }),
        ("a hand-over with a receive armed", |_, io, slot| {
            io.receive(slot);
            io.hand_over(slot, 1, 0);
        }),
        ("a leaked buffer", |net, io, slot| {
            net.client_send(ClientId(0), b"x");
            io.receive(slot);
            drop(wait_for(net, io, |c| matches!(c, Completion::Received { .. })));
        }),
        ("use after a crash", |net, io, slot| {
            net.crash_all();
            io.receive(slot);
        }),
    ];
    for (what, breach) in breaches {
        let net = SimNet::new(14, FaultPlan::default());
        let mut io = net.shard(0, 4, 1);
        let (_, slot) = accept_one(&net, &mut io);
        let outcome = catch_unwind(AssertUnwindSafe(|| breach(&net, &mut io, slot)));
        assert!(outcome.is_err(), "{what} went unnoticed");
    }
}

/// Makes a shard sleep until something completes.
fn park(io: &mut SimIo) {
    io.wait(Wait::Until(Now(u64::MAX)));
}

/// Lets time go by. Nothing may wake a shard meanwhile.
fn settle(net: &SimNet, ms: u64) {
    let end = net.now().plus_ms(ms);
    while net.now() < end {
        assert!(net.runnable().is_empty(), "a shard is due");
        net.advance(end);
    }
}

fn accept_one(net: &SimNet, io: &mut SimIo) -> (ClientId, Slot) {
    io.set_accepting(true);
    let id = net.connect(0);
    match wait_for(net, io, |c| matches!(c, Completion::Accepted { .. })) {
        Completion::Accepted { slot, .. } => (id, slot),
        other => panic!("{other:?}"),
    }
}

/// The next completion that `wanted` names; others are passed over.
fn wait_for(
    net: &SimNet,
    io: &mut SimIo,
    wanted: impl Fn(&Completion<SimBuf>) -> bool,
) -> Completion<SimBuf> {
    let end = net.now().plus_ms(1_000);
    loop {
        let completion = next_completion(net, io, end);
        if wanted(&completion) {
            return completion;
        }
    }
}

fn next_completion(net: &SimNet, io: &mut SimIo, end: Now) -> Completion<SimBuf> {
    loop {
        if let Some(completion) = io.next() {
            return completion;
        }
        assert!(net.now() < end, "nothing happened");
        io.wait(Wait::Until(end));
        net.advance(end);
    }
}
