//! The HTTP user centre against a server of the test's own on 127.0.0.1, which shows the exact
//! bytes it got and answers what the test says (specs/binary-ws.md section 10).

mod doubles;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use doubles::{PATIENCE, auth, double, pass};
use storage::auth::{Authenticator, ForwardRole, HttpConfig, UserCentre};
use storage::sidecar::{Config, Limits};
use storage::{AuthRequest, AuthVerdict, Reply, Request, Sidecar, Waker};

/// What the server does with a request.
#[derive(Clone)]
enum Answer {
    Body(u16, String),
    /// Raw bytes, then the connection is closed.
    Cut(Vec<u8>),
    /// A reply after which the connection is closed though nothing said so.
    ThenClose(String),
    /// Waits for the test, then passes with uid 7.
    Hold,
}

struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    requests: Receiver<Vec<u8>>,
    /// One entry lets one held request go on.
    release: Sender<()>,
    /// Requests being held now, and at most.
    held: Arc<Mutex<(usize, usize)>>,
}

/// Serves until the test process ends; `answers` in order, the last one again and again.
fn serve(answers: Vec<Answer>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, requests) = unbounded();
    let (release, gate) = unbounded();
    let connections = Arc::new(AtomicUsize::new(0));
    let held = Arc::new(Mutex::new((0, 0)));
    let script = Arc::new(Mutex::new(answers.into_iter()));
    let last = Arc::new(Mutex::new(None));
    let (count, holding) = (Arc::clone(&connections), Arc::clone(&held));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, SeqCst);
            let (seen, gate, holding) = (seen.clone(), gate.clone(), Arc::clone(&holding));
            let (script, last) = (Arc::clone(&script), Arc::clone(&last));
            let next = move || {
                let mut last = last.lock().unwrap();
                let next = script.lock().unwrap().next().or_else(|| last.clone());
                last.clone_from(&next);
                next.expect("an answer")
            };
            std::thread::spawn(move || talk(stream.unwrap(), &seen, next, &gate, &holding));
        }
    });
    Server { port, connections, requests, release, held }
}

fn talk(
    mut stream: TcpStream,
    seen: &Sender<Vec<u8>>,
    next: impl Fn() -> Answer,
    gate: &Receiver<()>,
    holding: &Mutex<(usize, usize)>,
) {
    while let Some(request) = read_request(&mut stream) {
        let _ = seen.send(request);
        let (reply, close) = match next() {
            Answer::Body(status, body) => (http(status, &body), false),
            Answer::Cut(bytes) => (bytes, true),
            Answer::ThenClose(body) => (http(200, &body), true),
            Answer::Hold => {
                let mut now = holding.lock().unwrap();
                now.0 += 1;
                now.1 = now.1.max(now.0);
                drop(now);
                let _ = gate.recv_timeout(PATIENCE);
                holding.lock().unwrap().0 -= 1;
                (http(200, r#"{"result":"pass","uid":7}"#), false)
            }
        };
        let _ = stream.write_all(&reply);
        if close {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn http(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Word\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}

/// Head and body as they came; `None` at the end of the stream.
fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let head = String::from_utf8(request.clone()).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).ok()?;
    request.extend(body);
    Some(request)
}

fn passing(uid: &str) -> Answer {
    Answer::Body(200, format!(r#"{{"result":"pass","uid":{uid}}}"#))
}

impl Server {
    fn centre(&self) -> UserCentre {
        self.centre_with(ForwardRole::WhenPresent, Duration::from_secs(5))
    }

    fn centre_with(&self, forward_role: ForwardRole, timeout: Duration) -> UserCentre {
        let url = format!("http://127.0.0.1:{}/auth", self.port);
        let config = HttpConfig { url, forward_role, timeout, connections: 4 };
        UserCentre::new(&config, Box::new(double().0)).unwrap()
    }

    fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    fn request(&self) -> String {
        String::from_utf8(self.requests.recv_timeout(PATIENCE).expect("a request")).unwrap()
    }
}

fn real_user(role: Option<u8>) -> AuthRequest {
    AuthRequest { role, ..auth(1, "xyb|##|app|##|1234", "a+b c") }
}

#[test]
fn the_request_is_the_documented_one_byte_for_byte() {
    let server = serve(vec![passing("1234")]);
    let verdict = server.centre().authenticate(&real_user(Some(2)));
    assert_eq!(verdict, pass(1234));
    let request = server.request();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "username=xyb%7C%23%23%7Capp%7C%23%23%7C1234&password=a%2Bb+c&role=2");
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("POST /auth HTTP/1.1"));
    let mut headers: Vec<_> = lines.map(str::to_lowercase).collect();
    headers.sort();
    assert_eq!(
        headers,
        [
            "accept: application/json".to_owned(),
            format!("content-length: {}", body.len()),
            "content-type: application/x-www-form-urlencoded;charset=utf-8".to_owned(),
            format!("host: 127.0.0.1:{}", server.port),
        ]
    );
}

#[test]
fn ambiguity_02_the_role_is_forwarded_as_configured() {
    let server = serve(vec![passing("1")]);
    for (forward, role, expected) in [
        (ForwardRole::WhenPresent, Some(255), "&role=255"),
        (ForwardRole::WhenPresent, None, ""),
        (ForwardRole::Never, Some(2), ""),
        (ForwardRole::Always, Some(2), "&role=2"),
        (ForwardRole::Always, None, "&role=0"),
    ] {
        server.centre_with(forward, PATIENCE).authenticate(&real_user(role));
        let request = server.request();
        let (_, tail) = request.split_once("&password=a%2Bb+c").unwrap();
        assert_eq!(tail, expected, "{forward:?} {role:?}");
    }
}

#[test]
fn connections_are_kept_and_used_again() {
    let server = serve(vec![
        passing("1"),
        passing(r#""4294967295""#),
        Answer::Body(200, r#"{"result":"denied"}"#.into()),
        Answer::Body(500, "oops".into()),
        Answer::Body(200, "<html>".into()),
        passing("2"),
    ]);
    let mut centre = server.centre();
    let mut clone = centre.sibling(Box::new(double().0));
    let verdicts = [(); 3].map(|()| centre.authenticate(&auth(1, "a", "b")));
    use AuthVerdict::{Denied, Unavailable};
    assert_eq!(verdicts, [pass(1), pass(u32::MAX), Denied]);
    let verdicts = [(); 3].map(|()| clone.authenticate(&auth(1, "a", "b")));
    assert_eq!(verdicts, [Unavailable, Unavailable, pass(2)]);
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_kept_connection_that_the_centre_closed_is_replaced_without_anybody_noticing() {
    let body = r#"{"result":"pass","uid":7}"#;
    let server = serve(vec![Answer::ThenClose(body.into())]);
    let mut centre = server.centre();
    for round in 1..=20 {
        assert_eq!(centre.authenticate(&auth(1, "a", "b")), pass(7));
        assert_eq!(server.connections(), round);
    }
}

#[test]
fn a_reply_cut_short_or_malformed_is_no_verdict() {
    for cut in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n{\"result\":\"pass\"",
        b"not http at all\r\n\r\n",
    ] {
        let server = serve(vec![Answer::Cut(cut.to_vec())]);
        let verdict = server.centre().authenticate(&auth(1, "a", "b"));
        assert_eq!(verdict, AuthVerdict::Unavailable, "{}", cut.escape_ascii());
    }
}

#[test]
fn a_reply_beyond_the_bound_is_no_verdict_and_does_not_count_as_down() {
    let filler = " ".repeat(70_000);
    let huge = Answer::Body(200, format!(r#"{{"result":"pass","uid":7}}{filler}"#));
    let fits = Answer::Body(200, format!(r#"{{"result":"pass","uid":7}}{}"#, &filler[..60_000]));
    let mut script = vec![huge; 20];
    script.push(fits);
    let server = serve(script);
    let mut centre = server.centre();
    for _ in 0..20 {
        assert_eq!(centre.authenticate(&auth(1, "a", "b")), AuthVerdict::Unavailable);
    }
    assert_eq!(centre.authenticate(&auth(1, "a", "b")), pass(7));
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = serve(vec![passing("1")]);
    let port = elsewhere.port;
    let reply = format!(
        "HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r\n"
    );
    let server = serve(vec![Answer::Cut(reply.into())]);
    assert_eq!(server.centre().authenticate(&auth(1, "a", "b")), AuthVerdict::Unavailable);
    assert_eq!(elsewhere.connections(), 0, "the password stays here");
}

#[test]
fn a_slow_centre_is_given_up_after_the_time_out() {
    let server = serve(vec![Answer::Hold]);
    let timeout = Duration::from_millis(50);
    let start = Instant::now();
    let mut centre = server.centre_with(ForwardRole::Never, timeout);
    assert_eq!(centre.authenticate(&auth(1, "a", "b")), AuthVerdict::Unavailable);
    assert!(start.elapsed() >= timeout);
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
}

#[test]
fn a_dead_centre_is_not_asked_by_every_login_and_is_found_again() {
    let dead = Answer::Cut(Vec::new());
    let server = serve([vec![dead; 12], vec![passing("7")]].concat());
    let mut centre = server.centre();
    let mut logins = 0;
    let deadline = Instant::now() + PATIENCE;
    while centre.authenticate(&auth(1, "a", "b")) == AuthVerdict::Unavailable {
        assert!(Instant::now() < deadline, "the breaker stays open");
        logins += 1;
    }
    // Five failures open the breaker, each asked twice since the connection might have been stale;
    // then one probe fails the same way, and the next one passes.
    assert_eq!(server.connections(), 13);
    assert!(logins > 1000, "answered without the centre: {logins}");
}

#[test]
fn the_calls_under_way_are_bounded_by_the_number_of_clones() {
    let server = serve(vec![Answer::Hold]);
    let centre = server.centre_with(ForwardRole::Never, PATIENCE);
    let sibling = || Box::new(centre.sibling(Box::new(double().0))) as Box<dyn Authenticator>;
    let authenticators = (0..3).map(|_| vec![sibling()]).collect();
    let (woken, wakes) = unbounded();
    let waker: Waker = Box::new(move || {
        let _ = woken.send(());
    });
    let config = Config {
        store: Box::new(double().0),
        open_ids: None,
        authenticators,
        group_sources: Vec::new(),
        limits: Limits::default(),
    };
    let (sidecar, mut ports) = Sidecar::start(config, vec![waker]).unwrap();
    for token in 0..12 {
        let name = format!("user {token}");
        ports[0].submit(Request::Auth(auth(token, &name, "secret"))).unwrap();
    }
    for _ in 0..3 {
        server.requests.recv_timeout(PATIENCE).expect("three calls at once");
    }
    for _ in 0..12 {
        server.release.send(()).unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    let mut passed = 0;
    while passed < 12 {
        match ports[0].try_recv() {
            Some(Reply::Auth { verdict, .. }) => {
                assert_eq!(verdict, pass(7));
                passed += 1;
            }
            Some(other) => panic!("{other:?}"),
            None => wakes.recv_deadline(deadline).expect("twelve verdicts"),
        }
    }
    assert!(server.held.lock().unwrap().1 <= 3);
    assert!(server.connections() <= 3, "kept connections are used again");
    assert!(sidecar.stop(PATIENCE));
}
