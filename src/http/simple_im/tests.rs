//! Every route over real connections, on a store in a file.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use codec::{GroupId, Message, MessageId, News, Notice, ProtocolId, Target, UserId, UserKey};
use storage::Admin as _;
use storage::admin::NewUser;
use storage::auth::hash_password;
use storage::sqlite::Options;
use storage::sqlite::simple_im::SimpleIm;
use storage::store::Write;
use storage::{Append, SqliteStore, Store as _};

use super::passwords::WAITING_MAX;
use super::*;
use crate::http;
use crate::http::tests::Fake;

/// A server with users 1 (phone 1, `ann`) and 2 (phone 2, `ben`), password `pw`.
struct Site {
    address: SocketAddr,
    store: SqliteStore,
    user: UserKey,
    /// Somebody listens where tokens point to.
    im: TcpListener,
    gateway: Arc<Fake>,
    face: Face,
    folder: tempfile::TempDir,
}

fn on_a_site(ttl: Duration, test: impl FnOnce(Site)) {
    on_a_site_with(|settings| settings.token_ttl = ttl, test);
}

fn on_a_site_with(set: impl FnOnce(&mut Settings), test: impl FnOnce(Site)) {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || SqliteStore::open(&folder.path().join("a.db"), Options::default());
    let mut store = open().expect("a store");
    let tenant = store.tenant_id("default", "default").expect("the store works");
    let password_hash = hash_password(b"pw");
    for (id, name) in [(1, "ann"), (2, "ben")] {
        let user = NewUser {
            key: UserKey { tenant, id: UserId(id) },
            name: name.as_bytes().into(),
            password_hash: password_hash.clone(),
            phone: Some(format!("1850000000{id}")),
        };
        store.add_user(user).expect("he is new");
    }
    let im = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = im.local_addr().expect("bound").port();
    let accounts = Box::new(SimpleIm::new(open().expect("a store"), tenant));
    let gateway = Arc::new(Fake::default());
    let mut settings = Settings {
        address: Address { host: "127.0.0.1".to_owned(), port },
        token_ttl: LONG,
        brackets: Brackets::Auto,
        registration: true,
        deflate: true,
    };
    set(&mut settings);
    let face = Face::new(
        accounts,
        None,
        Verified::new(100, LONG),
        Arc::clone(&gateway) as Arc<dyn Gateway>,
        settings,
    );
    let address = served(routes(face.clone()));
    let user = UserKey { tenant, id: UserId(1) };
    test(Site { address, store, user, im, gateway, face, folder });
}

/// Serves on a thread of its own until the test program ends.
fn served(routes: Router) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let bound = http::start(([127, 0, 0, 1], 0).into(), routes).await;
            tell.send(bound.expect("loopback can be bound")).expect("the test waits");
            std::future::pending::<()>().await;
        });
    });
    told.recv().expect("it is told")
}

/// Status line, and the body as bytes.
fn ask(address: SocketAddr, method: &str, path: &str, head: &str, body: &str) -> (String, Vec<u8>) {
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    let len = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{head}Content-Length: \
         {len}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    assert!(!head.contains("content-type"), "the clients were never told one: {head}");
    let status = head.lines().next().unwrap_or_default().to_owned();
    (status, answer.split_off(end + 4))
}

impl Site {
    fn ask(&self, method: &str, path: &str, head: &str, body: &str) -> (String, Vec<u8>) {
        ask(self.address, method, path, head, body)
    }

    fn text(&self, method: &str, path: &str, head: &str, body: &str) -> String {
        let (status, body) = self.ask(method, path, head, body);
        assert_eq!(status, "http/1.1 200 ok");
        String::from_utf8(body).expect("text")
    }

    fn post(&self, path: &str, body: &str) -> String {
        self.text("POST", path, "", body)
    }

    fn with_cookie(&self, method: &str, path: &str, token: &str, body: &str) -> String {
        self.text(method, path, &format!("Cookie: a=b; token={token}\r\n"), body)
    }

    fn token_of(&self, phone: &str) -> String {
        let answer = self.post("/server/login", &format!("phone={phone}&password=pw"));
        let start = answer.find("token = \"").expect("a token") + "token = \"".len();
        let token = answer[start..].split('"').next().expect("its end").to_owned();
        assert_eq!(token.len(), 32, "{answer}");
        token
    }

    /// From now on the store cannot say anything about tokens.
    fn take_tokens_away(&self) {
        let file = rusqlite::Connection::open(self.folder.path().join("a.db")).expect("a store");
        file.execute("ALTER TABLE tokens RENAME TO lost", ()).expect("it is there");
    }

    /// A token for a device, as the later clients ask for it.
    fn token_on(&self, phone: &str, device: &str) -> String {
        let body = format!("phone={phone}&password=pw&device={device}");
        let answer = self.post("/server/login", &body);
        let token = answer.split("token = \"").nth(1).and_then(|rest| rest.split('"').next());
        token.expect("a token").to_owned()
    }

    fn id_of(&self, phone: &str, token: &str) -> u32 {
        let found = self.with_cookie("GET", &format!("/user/phone/{phone}"), token, "");
        let id = found.split("id = ").nth(1).and_then(|rest| rest.split(' ').next());
        id.and_then(|id| id.parse().ok()).expect("an id")
    }

    /// Who was told what since the last call: by whom, on which device.
    fn told(&self) -> Vec<(Vec<u32>, u32, String, News)> {
        let told = std::mem::take(&mut *self.gateway.told.lock().expect("no test has failed"));
        let plain = |(to, notice): (Vec<UserKey>, Notice)| {
            assert!(to.iter().all(|to| to.tenant == self.user.tenant) && notice.time_ms > 0);
            let name: &[u8] = if notice.by == UserId(1) { b"ann" } else { b"ben" };
            assert_eq!(*notice.name, *name);
            let device = String::from_utf8(notice.device.to_vec()).expect("text");
            (to.iter().map(|to| to.id.0).collect(), notice.by.0, device, notice.news)
        };
        told.into_iter().map(plain).collect()
    }

    fn port(&self) -> u16 {
        self.im.local_addr().expect("bound").port()
    }
}

const LONG: Duration = Duration::from_secs(100);
const ANN: &str = "18500000001";

#[test]
fn a_login_says_where_and_with_which_token_in_the_words_of_the_document() {
    on_a_site(LONG, |site| {
        let answer = site.post("/server/login", &format!("phone={ANN}&password=pw"));
        let port = site.port();
        let start = format!(
            "[response] status = 0 server = \"127.0.0.1\" port = \"{port}\" [response.user] token \
             = \""
        );
        assert!(answer.starts_with(&start) && answer.ends_with("\" id = 1"), "{answer}");
        assert_eq!(site.post("/server/login", &format!("phone={ANN}&password=no")), SINGLE_1);
        assert_eq!(site.post("/server/login", "phone=7&password=pw"), "[response] status = 2");
    });
}

/// Goal: a storm of logins holds up nobody else. Method: many wrong passwords at once, and a call
/// with a token behind them.
#[test]
fn nobody_waits_for_somebody_elses_password() {
    on_a_site(LONG, |site| {
        let (token, address) = (site.token_of(ANN), site.address);
        let (asked, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..STORM {
                scope.spawn(|| {
                    asked.fetch_add(1, SeqCst);
                    let wrong = format!("phone={ANN}&password=no");
                    let (_, told) = ask(address, "POST", "/server/login", "", &wrong);
                    assert_eq!(told, SINGLE_1.as_bytes());
                    answered.fetch_add(1, SeqCst);
                });
            }
            while asked.load(SeqCst) < STORM {
                std::thread::yield_now();
            }
            // Some of them are in the server by now; so it goes on.
            for _ in 0..3 {
                let there = site.post("/server/reconnect", &format!("id=1&token={token}"));
                assert_eq!(there, at(&site, "[response]"));
            }
            assert!(answered.load(SeqCst) < STORM / 2, "it waited for passwords");
        });
    });
}

const STORM: usize = 40;

#[test]
fn without_a_turn_for_passwords_known_ones_come_in_and_all_others_are_told() {
    on_a_site(LONG, |site| {
        site.token_of(ANN);
        let face = site.face.clone();
        let all = face.0.passwords.turns.try_acquire_many(WAITING_MAX as u32);
        let all = all.expect("nobody is there");
        let token = site.token_of(ANN);
        assert_eq!(
            site.post("/server/reconnect", &format!("id=1&token={token}")),
            at(&site, "[response]")
        );
        let wrong = format!("phone={ANN}&password=no");
        let nobody = "phone=7&password=pw&device=android";
        for body in [&*wrong, nobody] {
            let (status, body) = site.ask("POST", "/server/login", "", body);
            assert_eq!((&*status, body.len()), ("http/1.1 503 service unavailable", 0));
        }
        let (status, _) = site.ask("POST", "/user", "", "name=cat&phone=18500000003&password=pw");
        assert_eq!(status, "http/1.1 503 service unavailable");
        drop(all);
        assert_eq!(site.post("/server/login", &wrong), SINGLE_1);
        site.token_of("18500000002");
    });
}

#[test]
fn the_documents_own_command_line_logs_in() {
    on_a_site(LONG, |site| {
        // What curl makes of --data-urlencode "phone=...&password=..." is one field.
        let answer = site.post("/server/login", &format!("phone={ANN}%26password%3Dpw"));
        assert!(answer.starts_with("[response] status = 0 "), "{answer}");
        let token = site.token_of(ANN).replace('+', "%2B").replace('/', "%2F");
        let answer = site.post("/server/reconnect", &format!("id=1%26token%3D{token}"));
        assert_eq!(answer, at(&site, "[response]"));
    });
}

#[test]
fn later_clients_read_double_brackets() {
    on_a_site(LONG, |site| {
        let body = format!("phone={ANN}&password=pw&device=android");
        assert!(site.post("/server/login", &body).starts_with("[[response]] status = 0 server"));
        let wrong = format!("phone={ANN}&password=no&device=android");
        let mismatch = "[[response]] status = 1 reason = \"Mismatch\"";
        assert_eq!(site.post("/server/login", &wrong), mismatch);
        let unknown = "[[response]] status = 2 reason = \"User doesn't exist!\"";
        assert_eq!(site.post("/server/login", "phone=7&password=x&device=a"), unknown);
        let missing = "[[response]] status = 3 reason = \"password Required\"";
        assert_eq!(site.post("/server/login", "phone=7&device=a"), missing);
    });
}

#[test]
fn a_reconnect_takes_the_token_raw_encoded_or_as_a_cookie_and_only_of_that_user() {
    on_a_site(LONG, |site| {
        let token = site.token_of(ANN);
        // A raw `+` comes out of the decoding as a blank.
        let raw = site.post("/server/reconnect", &format!("id=1&token={token}"));
        assert_eq!(raw, at(&site, "[response]"));
        let encoded = token.replace('+', "%2B").replace('/', "%2F");
        let encoded = site.post("/server/reconnect", &format!("id=1&token={encoded}"));
        assert_eq!(encoded, at(&site, "[response]"));
        let cookie = site.with_cookie("POST", "/server/reconnect", &token, "id=1");
        assert_eq!(cookie, at(&site, "[[response]]"));
        let other = site.post("/server/reconnect", &format!("id=2&token={token}"));
        assert_eq!(other, "[response] status = 2");
        assert_eq!(site.post("/server/reconnect", "id=1&token=nothing"), SINGLE_1);
    });
}

#[test]
fn a_token_that_nobody_used_expires() {
    on_a_site(Duration::ZERO, |site| {
        let token = site.token_of(ANN);
        assert_eq!(site.post("/server/reconnect", &format!("id=1&token={token}")), SINGLE_1);
    });
}

#[test]
fn a_server_that_is_there_has_not_failed_and_another_is_named_for_one_that_is_gone() {
    on_a_site(LONG, |mut site| {
        let token = site.token_of(ANN);
        let there = site.post("/server/failed", &format!("token={token}"));
        assert_eq!(there, "[response] status = 3 r = \"IM is online\"");
        let there = site.with_cookie("POST", "/server/failed", &token, "");
        assert_eq!(there, "[[response]] status = 1 reason = \"IM is online\"");
        assert_eq!(site.post("/server/failed", "token=nothing"), SINGLE_1);
        let gone = at(&site, "[response]");
        // Another port, so that nobody listens at the old one.
        site.im = TcpListener::bind("127.0.0.1:0").expect("a port");
        assert_eq!(site.post("/server/failed", &format!("token={token}")), gone);
    });
}

#[test]
fn what_went_wrong_has_no_text_of_the_framework() {
    on_a_site(LONG, |site| {
        let cookie = format!("Cookie: token={}\r\n", site.token_of(ANN));
        let crash = ("http/1.1 500 internal server error".to_owned(), Vec::new());
        for path in ["/user/id/abc", "/user/id/-1", "/user/phone/%ff", "/contact/version/x"] {
            assert_eq!(site.ask("GET", path, &cookie, ""), crash, "{path}");
        }
        assert_eq!(site.ask("POST", "/group/1/member/x", &cookie, ""), crash);
        let body = "x".repeat(BODY_BYTES + 1);
        let too_large = ("http/1.1 413 payload too large".to_owned(), Vec::new());
        assert_eq!(site.ask("POST", "/server/login", "", &body), too_large);
    });
}

#[test]
fn names_have_as_many_characters_as_the_original_s_columns() {
    on_a_site(LONG, |site| {
        let ok = "[[response]] status = 0";
        let name = |len| "%E5%90%8D".repeat(len);
        let user = |name: &str| site.post("/user", &format!("name={name}&phone=1&password=x"));
        let refused = "[[response]] status = 2 reason = \"Unknown reason\"";
        assert_eq!(user(&name(21)), refused);
        assert_eq!(user(&name(20)), ok);
        let long = format!("name=n&phone={}&password=x", "1".repeat(16));
        assert_eq!(site.post("/user", &long), refused);
        let ann = site.token_of(ANN);
        let group = |name: &str| {
            site.with_cookie("POST", "/group", &ann, &format!("name={name}&members=2"))
        };
        let refused = "[[response]] status = 3 reason = \"Unknow Error\"";
        assert_eq!(group(&name(21)), refused);
        assert_eq!(group(&"x".repeat(60_000)), refused);
        assert!(group(&name(20)).starts_with("[[response]] status = 0 g_id = "));
    });
}

#[test]
fn nobody_makes_himself_a_user_where_that_is_off() {
    on_a_site_with(
        |settings| settings.registration = false,
        |site| {
            let body = "name=cat&phone=18500000003&password=pw";
            let refused = "[[response]] status = 2 reason = \"Unknown reason\"";
            assert_eq!(site.post("/user", body), refused);
            let login = site.post("/server/login", "phone=18500000003&password=pw");
            assert_eq!(login, "[response] status = 2");
        },
    );
}

#[test]
fn brackets_are_the_configuration_s_where_the_question_does_not_tell() {
    on_a_site_with(
        |settings| settings.brackets = Brackets::Double,
        |site| {
            let answer = site.post("/server/login", &format!("phone={ANN}&password=pw"));
            assert!(answer.starts_with("[[response]] status = 0 server = "), "{answer}");
            let token = answer.split('"').nth(5).expect("a token").replace('+', "%2B");
            let body = format!("id=1&token={token}");
            assert_eq!(site.post("/server/reconnect", &body), at(&site, "[[response]]"));
            let online = "[[response]] status = 1 reason = \"IM is online\"";
            assert_eq!(site.post("/server/failed", &body), online);
        },
    );
    on_a_site_with(
        |settings| settings.brackets = Brackets::Single,
        |site| {
            let body = format!("phone={ANN}&password=pw&device=android");
            assert!(site.post("/server/login", &body).starts_with("[response] status = 0 "));
        },
    );
}

#[test]
fn a_store_that_is_down_denies_no_token() {
    on_a_site(LONG, |site| {
        let token = site.token_of(ANN);
        site.take_tokens_away();
        let body = format!("token={}", token.replace('+', "%2B"));
        assert_eq!(site.post("/server/failed", &body), "[response] status = 2");
        assert_eq!(
            site.post("/server/reconnect", &format!("id=1&{body}")),
            "[response] status = 2"
        );
        let unknown = "[[response]] status = 2 reason = \"Unkown Error\"";
        assert_eq!(site.with_cookie("POST", "/server/failed", &token, ""), unknown);
        assert_eq!(site.with_cookie("POST", "/server/reconnect", &token, "id=1"), unknown);
        let cookie = format!("Cookie: token={token}\r\n");
        let unavailable = ("http/1.1 503 service unavailable".to_owned(), Vec::new());
        assert_eq!(site.ask("POST", "/offline", "", &body), unavailable);
        for path in ["/offline", "/user/id/1", "/contact/version/0"] {
            assert_eq!(site.ask("GET", path, &cookie, ""), unavailable, "{path}");
        }
    });
}

#[test]
fn what_is_no_route_of_the_server_is_told_so() {
    on_a_site(LONG, |site| {
        for (method, path, body) in [
            ("GET", "/server/login", ""),
            ("POST", "/server/login", ""),
            ("POST", "/server/other", "a=b"),
            ("PUT", "/server/reconnect", "id=1"),
        ] {
            let (status, body) = site.ask(method, path, "", body);
            assert_eq!(status, "http/1.1 404 not found", "{method} {path}");
            assert_eq!(body, b"[response] status = 404");
        }
        assert_eq!(site.ask("GET", "/nothing", "", "").0, "http/1.1 404 not found");
        assert_eq!(site.text("GET", "/health", "", ""), "I'm OK! :)\r\n");
        // A field is missing: the original's handler ended there.
        let (status, body) = site.ask("POST", "/server/login", "", "phone=1");
        assert_eq!((&*status, body.len()), ("http/1.1 500 internal server error", 0));
        let (status, _) = site.ask("GET", "/offline", "", "");
        assert_eq!(status, "http/1.1 500 internal server error", "no cookie");
    });
}

#[test]
fn offline_messages_are_read_newest_first_and_cleared_as_far_as_they_were_read() {
    on_a_site(LONG, |mut site| {
        let token = site.token_of(ANN);
        let put = |store: &mut SqliteStore, user: UserKey, seq: u64| {
            let append = Append { user, seq, message: message(user, seq), binding: None };
            assert_eq!(store.write(&[Write::Append(append)]), [Ok(())]);
        };
        let user = site.user;
        (1..=2).for_each(|seq| put(&mut site.store, user, seq));
        let cookie = format!("Cookie: token={token}\r\n");
        let (_, body) = site.ask("GET", "/offline", &cookie, "");
        let parts: Vec<&[u8]> = split(&body);
        assert_eq!(parts.len(), 2, "the clients cut the answer in exactly two");
        assert_eq!(parts[0], b"[[response]] status = 0");
        let packets = inflate(parts[1]);
        let lines: Vec<&str> = packets.split("\r\n").filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 2, "{packets}");
        assert!(lines[0].contains("c = \"message 2\"") && lines[1].contains("c = \"message 1\""));
        // One more comes before the client clears: it stays.
        put(&mut site.store, user, 3);
        assert_eq!(site.with_cookie("DELETE", "/offline", &token, ""), "[[response]] status = 0");
        let (rows, _) = site.store.read(user, 0, 10, 1000).expect("the store works");
        assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [3]);
        let plain = site.post("/offline", &format!("token={token}"));
        assert!(plain.starts_with("[[response]] status = 0\r\n[[m]] "), "{plain}");
        for path in ["/offline", "/offline/get", "/offline/clean"] {
            let refused = site.post(path, "token=nothing");
            assert_eq!(refused, "[[response]] status = 1 r = \"Token error\"", "{path}");
        }
        // As the clients before cookies ask, and after them those before compression.
        let body = format!("token={}", token.replace('+', "%2B"));
        let read = site.post("/offline/get", &body);
        let nested = "[[response]] status = 0\r\n[[m]] ";
        assert!(read.starts_with(nested) && read.contains("[m.to] id = 1"), "{read}");
        assert_eq!(site.post("/offline/clean", &body), "[[response]] status = 0");
        let (rows, _) = site.store.read(user, 0, 10, 1000).expect("the store works");
        assert!(rows.is_empty(), "{rows:?}");
    });
}

#[test]
fn a_packet_that_hardly_gets_smaller_is_read_without_a_line_end_too() {
    on_a_site(LONG, |mut site| {
        let token = site.token_of(ANN);
        // Letters in no order: some ten line ends are to be expected in what comes out.
        let mut state = 1_u64;
        let letter = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'0' + (state >> 58) as u8)
        };
        let body: String = (0..1_000_000).map(letter).filter(|c| c.is_alphanumeric()).collect();
        let mut message = message(site.user, 1);
        Arc::get_mut(&mut message).expect("nobody else's").body = body.as_bytes().into();
        let append = Append { user: site.user, seq: 1, message, binding: None };
        assert_eq!(site.store.write(&[Write::Append(append)]), [Ok(())]);
        let (status, answer) =
            site.ask("GET", "/offline", &format!("Cookie: token={token}\r\n"), "");
        assert_eq!(status, "http/1.1 200 ok");
        let parts = split(&answer);
        assert_eq!(parts.len(), 2, "the clients cut the answer in exactly two");
        assert!(inflate(parts[1]).contains(&body), "nothing is lost");
    });
}

#[test]
fn offline_messages_are_as_they_are_where_clients_cannot_inflate() {
    let set = |settings: &mut Settings| settings.deflate = false;
    on_a_site_with(set, |mut site| {
        let token = site.token_of(ANN);
        let user = site.user;
        let append = Append { user, seq: 1, message: message(user, 1), binding: None };
        assert_eq!(site.store.write(&[Write::Append(append)]), [Ok(())]);
        let read = site.with_cookie("GET", "/offline", &token, "");
        let flat = "[[response]] status = 0\r\n[[m]] ";
        assert!(read.starts_with(flat) && read.contains(" to = 1"), "{read}");
    });
}

#[test]
fn users_contacts_and_groups_in_the_words_of_the_later_clients() {
    on_a_site(LONG, |site| {
        let made = site.post("/user", "name=cat&phone=18500000003&password=pw");
        assert_eq!(made, "[[response]] status = 0");
        let taken = site.post("/user", "name=dog&phone=18500000003&password=pw");
        assert_eq!(taken, "[[response]] status = 1 reason = \"User Exist\"");
        let ann = site.token_of(ANN);
        let ben = site.token_of("18500000002");
        let found = site.with_cookie("GET", "/user/phone/18500000003", &ann, "");
        let id = site.id_of("18500000003", &ann);
        assert_eq!(
            found,
            format!(
                "[[response]] status = 0\r\n[[user]] id = {id} name = \"cat\" phone = \
                 \"18500000003\" avatar = \"\""
            )
        );
        let none = site.with_cookie("GET", "/user/id/999", &ann, "");
        assert_eq!(none, "[[response]] status = 0");

        let ok = "[[response]] status = 0";
        assert_eq!(site.with_cookie("POST", "/contact/2", &ann, "message=hi%22"), ok);
        let pending = "[[response]] status = 1 reason = \"Waiting for accept\"";
        assert_eq!(site.with_cookie("POST", "/contact/2", &ann, ""), pending);
        let asked = site.with_cookie("GET", "/pre_contact/0", &ben, "");
        assert!(asked.contains("[[pre_contact]] user_id = 1 message = \"hi'\" timestamp = "));
        let accepted = site.with_cookie("PUT", "/contact/1", &ben, "");
        assert_eq!(accepted, "[[response]] status = 0 contact_version = 1");
        let unasked = "[[response]] status = 1 reason = \"Unauthorized operate\"";
        assert_eq!(site.with_cookie("PUT", "/contact/1", &ben, ""), unasked);
        let contacts = site.with_cookie("GET", "/contact/version/0", &ann, "");
        assert!(contacts.contains("[[contact]] id = 2 name = \"ben\""), "{contacts}");
        assert_eq!(site.with_cookie("DELETE", "/contact/2", &ann, ""), ok);

        let made = site.with_cookie("POST", "/group", &ann, "name=us&members%5B%5D=2");
        let number = made.split("g_id = ").nth(1).and_then(|rest| rest.split(' ').next());
        let number: u32 = number.and_then(|id| id.parse().ok()).expect("a number");
        let no = "[[response]] status = 3 reason = \"Unauthorized\"";
        assert_eq!(site.with_cookie("DELETE", &format!("/group/{number}"), &ben, ""), no);
        let add = format!("/group/{number}/member/{id}");
        assert_eq!(site.with_cookie("POST", &add, &ann, ""), ok);
        let leave = format!("/group/{number}/member");
        assert_eq!(site.with_cookie("DELETE", &leave, &ben, ""), ok);
        let key = made.split('"').nth(1).expect("a key");
        let join = format!("g_key={}", key.replace('+', "%2B"));
        assert_eq!(site.with_cookie("POST", &leave, &ben, &join), ok);
        assert_eq!(site.with_cookie("POST", &leave, &ben, "g_key=wrong"), no);
        assert_eq!(site.with_cookie("DELETE", &format!("/group/{number}"), &ann, ""), ok);
        let gone = "[[response]] status = 3 reason = \"Group Not Exist!\"";
        assert_eq!(site.with_cookie("DELETE", &leave, &ben, ""), gone);
        let stranger = "[[response]] status = 1 reason = \"Token error\"";
        assert_eq!(site.with_cookie("DELETE", &leave, "nothing", ""), stranger);
    });
}

#[test]
fn those_whom_a_change_concerns_are_told_of_it_and_nobody_of_what_did_not_happen() {
    on_a_site(LONG, |site| {
        let ann = site.token_on(ANN, "ipad");
        let ben = site.token_on("18500000002", "android");
        site.post("/user", "name=cat&phone=18500000003&password=pw");
        let cat = site.token_on("18500000003", "android");
        let cat_id = site.id_of("18500000003", &ann);
        let told = |method: &str, path: &str, token: &str, body: &str| {
            site.with_cookie(method, path, token, body);
            site.told()
        };
        let (one, two) = (UserId(1), UserId(2));
        let by_ann = |to: &[u32], news: News| vec![(to.to_vec(), 1, "ipad".to_owned(), news)];
        let by_ben = |to: &[u32], news: News| vec![(to.to_vec(), 2, "android".to_owned(), news)];
        let ask = b"hi"[..].into();
        let asked = by_ann(&[1, 2], News::ContactAsked { to: two, ask });
        assert_eq!(told("POST", "/contact/2", &ann, "ask=hi"), asked);
        assert_eq!(told("POST", "/contact/2", &ann, "ask=hi"), [], "he waits already");
        let accepted = by_ben(&[1, 2], News::ContactAccepted { to: one });
        assert_eq!(told("PUT", "/contact/1", &ben, ""), accepted);
        assert_eq!(told("PUT", "/contact/1", &ben, ""), [], "nothing is asked");
        let parted = by_ann(&[1, 2], News::ContactDeleted { to: two });
        assert_eq!(told("DELETE", "/contact/2", &ann, ""), parted);
        assert_eq!(told("DELETE", "/contact/2", &ann, ""), [], "they are none");

        let made = site.with_cookie("POST", "/group", &ann, "name=us&members%5B%5D=2");
        let number = made.split("g_id = ").nth(1).and_then(|rest| rest.split(' ').next());
        let group = GroupId(number.and_then(|id| id.parse().ok()).expect("a number"));
        let key = made.split('"').nth(1).expect("a key");
        let created = News::GroupCreated { group, key: key.as_bytes().into() };
        assert_eq!(site.told(), by_ann(&[1, 2], created));
        let members = format!("/group/{group}/member");
        let (group_path, add) = (format!("/group/{group}"), format!("{members}/{cat_id}"));
        let member = UserId(cat_id);
        let added = by_ann(&[1, 2, cat_id], News::MemberAdded { group, member });
        assert_eq!(told("POST", &add, &ann, ""), added);
        assert_eq!(told("POST", &add, &ann, ""), [], "he is one");
        let left = by_ben(&[1, 2, cat_id], News::MemberRemoved { group, member: two });
        assert_eq!(told("DELETE", &members, &ben, ""), left);
        assert_eq!(told("DELETE", &members, &ben, ""), [], "he is none");
        let join = format!("g_key={}", key.replace('+', "%2B"));
        let joined = by_ben(&[1, 2, cat_id], News::MemberAdded { group, member: two });
        assert_eq!(told("POST", &members, &ben, &join), joined);
        assert_eq!(told("DELETE", &group_path, &cat, ""), [], "it is not his");
        let gone = by_ann(&[1, 2, cat_id], News::GroupDeleted { group });
        assert_eq!(told("DELETE", &group_path, &ann, ""), gone);
    });
}

fn at(site: &Site, header: &str) -> String {
    format!("{header} status = 0 server = \"127.0.0.1\" port = \"{}\"", site.port())
}

fn split(body: &[u8]) -> Vec<&[u8]> {
    let mut parts = vec![body];
    while let Some(at) = parts[parts.len() - 1].windows(2).position(|pair| pair == b"\r\n") {
        let last = parts.pop().expect("never empty");
        parts.extend([&last[..at], &last[at + 2..]]);
    }
    parts
}

fn inflate(bytes: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::DeflateDecoder::new(bytes).read_to_string(&mut text).expect("whole");
    text
}

fn message(to: UserKey, number: u64) -> Arc<Message> {
    Arc::new(Message {
        stamp: u128::from(number),
        id: MessageId::from([b'x'; 32]),
        from: Some(UserKey { id: UserId(2), ..to }),
        from_name: b"ben"[..].into(),
        to: Target::User(to),
        protocol: ProtocolId::Binary,
        time_ms: 1_700_000_000_000,
        body: format!("message {number}").into_bytes().into(),
    })
}

const SINGLE_1: &str = "[response] status = 1";
