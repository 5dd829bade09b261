//! The whole client against a small broker that does one thing wrong: the run must say which.

use super::*;
use crate::client::Endpoint;
use crate::client::mqtt::{Mqtt, frame};
use crate::dialer::Dialer;
use crate::report::Report;
use crate::run::{Division, run};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is loaded, and how.
#[derive(Clone, Copy, Debug)]
struct Load {
    senders: u32,
    receivers: usize,
    group: bool,
    depth: u16,
    acked: bool,
    /// Open loop at so many per second.
    rate: Option<f64>,
    workers: usize,
    lasts: Duration,
    /// The receivers come when everything was sent.
    stored: bool,
}

const PAIRS: Load = Load {
    senders: 2,
    receivers: 1,
    group: false,
    depth: 4,
    acked: true,
    rate: None,
    workers: 1,
    lasts: Duration::from_millis(300),
    stored: false,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flaw {
    #[default]
    None,
    Lose,
    Duplicate,
    Reorder,
    Misdeliver,
    Corrupt,
    AckTwice,
    NeverAck,
    HangUp,
    /// It logs everybody in and then says nothing.
    Deaf,
    /// What it has stored for somebody it keeps, whatever he has had of it.
    Keep,
}

#[test]
fn a_right_broker_passes_in_every_shape() {
    // Pairs and fan-out, acknowledged and not, closed and open loop, one worker and two.
    for (senders, receivers, group) in [(2, 1, false), (1, 3, true)] {
        for (acked, depth) in [(true, 1), (true, 8), (false, 3)] {
            for rate in [None, Some(2000.0)] {
                let workers = senders as usize;
                let load = Load { senders, receivers, group, depth, acked, rate, workers, ..PAIRS };
                let (outcome, report) = load_against(Flaw::None, load);
                assert!(outcome.is_ok(), "{load:?}: {outcome:?}");
                let Tally { sent, delivered, .. } = report.tally;
                assert!(sent > 20 && delivered == sent * receivers as u64, "{:?}", report.tally);
                assert_eq!(report.tally.faults().count(), 0, "{:?}", report.tally);
            }
        }
    }
}

#[test]
fn an_open_loop_offers_what_it_was_told_to() {
    let (outcome, report) = load_against(Flaw::None, Load { rate: Some(1000.0), ..PAIRS });
    assert!(outcome.is_ok(), "{outcome:?}");
    // 0.4 s of schedule: 400 on average, the deviation is 20.
    assert!((250..550).contains(&report.tally.sent), "{:?}", report.tally);
}

#[test]
fn scheduled_messages_that_wait_too_long_are_given_up_and_counted() {
    // Nothing is acknowledged, so each sender's four places stay occupied.
    let load = Load { rate: Some(2000.0), ..PAIRS };
    let (_, report) = load_against(Flaw::Deaf, load);
    assert_eq!(report.tally.sent, 8, "{:?}", report.tally);
    assert!(report.tally.unsent > 100, "{:?}", report.tally);
}

#[test]
fn every_flaw_of_a_broker_is_told_by_its_name() {
    // The thirtieth message to user 2 meets the flaw; the tally must show it in its own field.
    type Count = fn(&Tally) -> u64;
    let cases: [(Flaw, Count); 7] = [
        (Flaw::Lose, |tally| tally.lost),
        (Flaw::Duplicate, |tally| tally.duplicated),
        (Flaw::Reorder, |tally| tally.reordered),
        (Flaw::Misdeliver, |tally| tally.misdelivered),
        (Flaw::Corrupt, |tally| tally.corrupted),
        (Flaw::AckTwice, |tally| tally.bad_acks),
        (Flaw::NeverAck, |tally| tally.unacked),
    ];
    for (flaw, count) in cases {
        let (outcome, mut report) = load_against(flaw, PAIRS);
        assert!(outcome.is_ok(), "{flaw:?}: {outcome:?}");
        assert!(count(&report.tally) > 0, "{flaw:?}: {:?}", report.tally);
        report.conclude();
        assert!(!report.ok, "{flaw:?}");
    }
}

#[test]
fn a_server_that_hangs_up_ends_the_run() {
    let (outcome, report) = load_against(Flaw::HangUp, Load { depth: 1, ..PAIRS });
    assert!(outcome.is_err_and(|Abort(why)| why.contains("was lost")));
    assert!(report.tally.sent > 0, "what was done before is reported");
}

#[test]
fn a_server_that_stops_answering_ends_the_run_with_what_was_missing() {
    let (outcome, report) =
        load_against(Flaw::Deaf, Load { lasts: Duration::from_secs(20), ..PAIRS });
    let why = outcome.expect_err("it is stuck").0;
    assert!(why.contains("nothing has happened") && why.contains("load"), "{why}");
    assert!(report.notes.iter().any(|note| note.contains("under way")), "{:?}", report.notes);
}

#[test]
fn what_was_stored_comes_once_and_not_again_at_the_next_login() {
    let stored = Load { stored: true, ..PAIRS };
    for (flaw, is_good) in [(Flaw::None, true), (Flaw::Keep, false)] {
        let (outcome, mut report) = load_against(flaw, stored);
        assert!(outcome.is_ok(), "{flaw:?}: {outcome:?}");
        let Tally { sent, delivered, duplicated, .. } = report.tally;
        let again = if is_good { 0 } else { sent };
        assert!(sent > 20 && (delivered, duplicated) == (sent + again, again), "{flaw:?}");
        report.conclude();
        assert_eq!(report.ok, is_good, "{flaw:?}: {:?}", report.failures);
    }
}

fn load_against(flaw: Flaw, load: Load) -> (Result<(), Abort>, Report) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let broker = Arc::new(Mutex::new(Broker { flaw, ..Broker::default() }));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let broker = broker.clone();
            std::thread::spawn(move || Broker::serve(&broker, stream));
        }
    });
    let setup = Setup {
        run: 1,
        first_user: 1,
        qos: u8::from(load.acked),
        acked: load.acked,
        stores: load.stored,
        text: false,
        login_concurrency: 8,
        ramp_per_s: None,
        warm_up: Duration::from_millis(100),
        duration: load.lasts,
        patience: Duration::from_millis(500),
        server_pid: None,
        rings: None,
    };
    let conversations = if load.group {
        fanout(1, load.senders, 9, 1 + load.receivers as u32)
    } else {
        pairs(1, load.senders as usize, Placement::Mixed, 1)
    };
    let shape = Shape {
        receivers: load.receivers,
        depth: load.depth,
        payload: 100,
        await_arrival: load.group || !load.acked,
        late_max_ns: 50_000_000,
    };
    let profile =
        load.rate.map_or(Profile::Closed, |rate| Profile::Open(vec![(setup.duration, rate)]));
    let each = conversations.len() / load.workers;
    let part = |slice: &[Conversation]| {
        Traffic::new(&setup, shape, slice.to_vec(), 1.0 / load.workers as f64)
    };
    let division = Division {
        phases: phases(&setup, &profile, load.stored),
        parts: conversations.chunks(each).map(part).collect(),
        slots: 64,
        connections: (conversations.len() * (1 + load.receivers)) as u64,
        users: 1..1 + load.senders * (1 + load.receivers as u32),
    };
    let host = String::new();
    let endpoint = Endpoint { address, path: host.clone(), host, tls: false, ws: false };
    let dialer = Dialer::new(endpoint, &[]).expect("plain");
    let mut report = Report::default();
    let outcome =
        std::thread::scope(|scope| run::<Mqtt, _>(scope, &setup, division, &dialer, &mut report));
    (outcome, report)
}

/// As much of a broker as the client needs.
#[derive(Default)]
struct Broker {
    flaw: Flaw,
    subscribers: HashMap<Vec<u8>, Vec<TcpStream>>,
    /// Messages to user 2.
    messages: usize,
    held: Option<Vec<u8>>,
    /// What nobody was there for, by topic.
    stored: HashMap<Vec<u8>, Vec<u8>>,
}

impl Broker {
    fn serve(broker: &Mutex<Self>, mut stream: TcpStream) {
        let (mut input, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            input.extend_from_slice(&buffer[..count]);
            while let Ok(Some((head, end))) = frame(&input) {
                let packet: Vec<u8> = input.drain(..end).collect();
                let mut broker = broker.lock().expect("no thread panics with it");
                if broker.handle(packet[0], &packet[head..], &packet, &mut stream).is_err() {
                    return;
                }
            }
        }
    }

    fn handle(
        &mut self,
        first: u8,
        body: &[u8],
        packet: &[u8],
        stream: &mut TcpStream,
    ) -> std::io::Result<()> {
        match first & 0xf0 {
            0x10 => stream.write_all(&[0x20, 2, 0, 0]),
            0x80 => {
                let (mut rest, mut answer) = (&body[2..], vec![0x90, 0, body[0], body[1]]);
                let mut topics = Vec::new();
                while !rest.is_empty() {
                    let length = usize::from(rest[1]);
                    let topic = rest[2..2 + length].to_vec();
                    topics.push(topic.clone());
                    self.subscribers.entry(topic).or_default().push(stream.try_clone()?);
                    answer.push(rest[2 + length]);
                    rest = &rest[3 + length..];
                }
                answer[1] = answer.len() as u8 - 2;
                stream.write_all(&answer)?;
                for topic in topics {
                    let waiting = self.stored.remove(&topic).unwrap_or_default();
                    stream.write_all(&waiting)?;
                    if self.flaw == Flaw::Keep {
                        self.stored.insert(topic, waiting);
                    }
                }
                Ok(())
            }
            0x30 => self.publish(first, body, packet, stream),
            _ => Ok(()),
        }
    }

    fn publish(
        &mut self,
        first: u8,
        body: &[u8],
        packet: &[u8],
        stream: &mut TcpStream,
    ) -> std::io::Result<()> {
        let end = 2 + usize::from(body[1]);
        let topic = &body[2..end];
        if self.flaw == Flaw::Deaf {
            return Ok(());
        }
        self.messages += usize::from(topic == b"u/2");
        let flaw = if topic == b"u/2" && self.messages == 30 { self.flaw } else { Flaw::None };
        if first & 6 != 0 && flaw != Flaw::NeverAck {
            let ack = [0x40, 2, body[end], body[end + 1]];
            stream.write_all(&ack.repeat(1 + usize::from(flaw == Flaw::AckTwice)))?;
        }
        let mut packet = packet.to_vec();
        let before = self.held.take_if(|_| topic == b"u/2");
        let to: &[u8] = if flaw == Flaw::Misdeliver { b"u/4" } else { topic };
        match flaw {
            Flaw::Lose => return Ok(()),
            Flaw::HangUp => return stream.shutdown(std::net::Shutdown::Both),
            Flaw::Reorder => {
                self.held = Some(packet);
                return Ok(());
            }
            Flaw::Duplicate => packet = packet.repeat(2),
            Flaw::Corrupt => *packet.last_mut().expect("not empty") ^= 1,
            Flaw::None
            | Flaw::Misdeliver
            | Flaw::AckTwice
            | Flaw::NeverAck
            | Flaw::Deaf
            | Flaw::Keep => {}
        }
        packet.extend(before.into_iter().flatten());
        if !self.subscribers.contains_key(to) {
            self.stored.entry(to.to_vec()).or_default().extend(packet);
            return Ok(());
        }
        for subscriber in self.subscribers.get_mut(to).into_iter().flatten() {
            subscriber.write_all(&packet)?;
        }
        Ok(())
    }
}
