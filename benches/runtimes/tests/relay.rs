//! One suite, run on every relay: what is said on one side is heard on the other, and every way in
//! which that cannot be ends a connection, not the relay.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// A relay of its own per test.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(program: &str) -> Self {
        let command = &mut Command::new(program);
        let mut process =
            command.arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().expect("the relay starts");
        let mut line = String::new();
        let output = process.stdout.take().expect("its output is a pipe");
        BufReader::new(output).read_line(&mut line).expect("its first line");
        let address = line.strip_prefix("listening on ").expect("it says where it listens");
        Self { process, address: address.trim_end().parse().expect("an address") }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the relay accepts");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.set_write_timeout(Some(PATIENCE)).expect("an option");
        stream
    }

    fn log_in(&self, number: u32) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(&number.to_be_bytes()).expect("the login is taken");
        let mut welcome = [0];
        stream.read_exact(&mut welcome).expect("an answer to the login");
        assert_eq!(welcome, *b"k");
        stream
    }

    fn pair(&self, odd: u32) -> [TcpStream; 2] {
        [self.log_in(odd), self.log_in(odd + 1)]
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.process.try_wait().expect("it was started here");
        self.process.kill().expect("it was started here");
        self.process.wait().expect("it was started here");
        assert!(ended.is_none() || thread::panicking(), "the relay ended: {ended:?}");
    }
}

/// Bytes of which every window of a few tells where it is.
fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect()
}

fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard).expect("everything that was said is heard");
    assert!(heard == expected, "other bytes than were said");
}

fn expect_end(stream: &mut TcpStream) {
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("the relay should have ended the connection: {other:?}"),
    }
}

/// True if nothing is there to be read and nobody closed.
fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("an option");
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("an option");
    matches!(seen, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn bytes_arrive_unchanged_however_they_are_cut(program: &str) {
    // The login byte by byte, then with the first words behind it; then words of odd lengths, from
    // both sides at once.
    let server = Server::start(program);
    let mut one = server.connect();
    for byte in 1_u32.to_be_bytes() {
        one.write_all(&[byte]).expect("a part of the login");
    }
    expect(&mut one, b"k");
    let mut two = server.connect();
    two.write_all(b"\0\0\0\x02hello").expect("a login and more");
    expect(&mut two, b"k");
    expect(&mut one, b"hello");
    let (mut at, mut len) = (0, 1);
    while at < LONG {
        one.write_all(&pattern(at, len)).expect("the relay reads");
        two.write_all(&pattern(at + 1, len)).expect("the relay reads");
        expect(&mut two, &pattern(at, len));
        expect(&mut one, &pattern(at + 1, len));
        at += len;
        len = len * 7 % 20_011;
    }
}

fn who_speaks_to_nobody_is_closed_and_his_number_is_free(program: &str) {
    let server = Server::start(program);
    let mut one = server.log_in(1);
    one.write_all(b"anybody?").expect("it is taken");
    expect_end(&mut one);
    let [mut one, two] = server.pair(1);
    drop(two);
    // Words that overtake the end are lost; then there is nobody.
    let mut words = 0;
    while one.write_all(b"still there?").is_ok() {
        words += 1;
        assert!(words < 1_000_000, "nobody hears, and nobody says so");
    }
    let [mut one, mut two] = server.pair(1);
    one.write_all(b"again").expect("it is taken");
    expect(&mut two, b"again");
}

fn a_number_is_one_connection(program: &str) {
    let server = Server::start(program);
    let [mut one, mut two] = server.pair(1);
    let highest = 1_000_000_u32;
    for refused in [0, 1, 2, highest + 1, u32::MAX] {
        let mut newcomer = server.connect();
        newcomer.write_all(&refused.to_be_bytes()).expect("it is taken");
        expect_end(&mut newcomer);
    }
    one.write_all(b"ping").expect("it is taken");
    expect(&mut two, b"ping");
    let [mut one, mut two] = server.pair(highest - 1);
    two.write_all(b"pong").expect("it is taken");
    expect(&mut one, b"pong");
}

/// Says `most` bytes or until the relay ends the speaker, one read at a time: after each, another
/// pair talks forth and back, so the relay has handled it. Returns what was said.
fn flood(one: &mut TcpStream, others: &mut [TcpStream; 2], most: usize) -> usize {
    let mut said = 0;
    while said < most {
        if one.write_all(&pattern(said, 4096)).is_err() {
            break;
        }
        said += 4096;
        for _ in 0..2 {
            let [left, right] = &mut *others;
            left.write_all(b"forth").expect("it is taken");
            expect(right, b"forth");
            right.write_all(b"back").expect("it is taken");
            expect(left, b"back");
        }
        if !is_open(one) {
            break;
        }
    }
    said
}

fn a_slow_partner_gets_what_fits_the_bound_and_is_closed_beyond_it(program: &str) {
    // First find how much fits: the sockets' room and the queue. Then say so much to another who
    // does not read, that only the last part of it is in the queue; he reads late, and gets all.
    let server = Server::start(program);
    let mut others = server.pair(1);
    let [mut one, slow] = server.pair(3);
    let bound = flood(&mut one, &mut others, MOST);
    assert!(bound < MOST, "the relay took {MOST} bytes for somebody who reads nothing");
    assert!(bound > QUEUE, "closed at {bound}, before the bound");
    expect_end(&mut one);
    drop(slow);
    let [mut one, mut slow] = server.pair(5);
    let most = (bound - QUEUE / 2) / 4096 * 4096;
    assert_eq!(flood(&mut one, &mut others, most), most, "closed though there was room");
    expect(&mut slow, &pattern(0, most));
    slow.write_all(b"at last").expect("it is taken");
    expect(&mut one, b"at last");
}

/// The longest silence on loopback that is not a hang.
const PATIENCE: Duration = Duration::from_secs(20);
const LONG: usize = 4 << 20;
/// More than the kernel's largest socket buffers and the queue.
const MOST: usize = 32 << 20;
const QUEUE: usize = runtimes::QUEUE;

macro_rules! suite {
    ($($engine:ident $program:literal: $($property:ident)*;)*) => {
        $(mod $engine {
            $(#[test]
            fn $property() {
                super::$property(env!(concat!("CARGO_BIN_EXE_", $program)));
            })*
        })*
    };
    ($($engine:ident $program:literal),*) => {
        suite! { $($engine $program:
            bytes_arrive_unchanged_however_they_are_cut
            who_speaks_to_nobody_is_closed_and_his_number_is_free
            a_number_is_one_connection
            a_slow_partner_gets_what_fits_the_bound_and_is_closed_beyond_it;
        )* }
    };
}

suite! {
    uring "relay-uring",
    epoll_io "relay-epoll-io",
    monoio "relay-monoio",
    glommio "relay-glommio",
    epoll "relay-epoll"
}
