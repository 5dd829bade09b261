//! Goal: a Redis or PostgreSQL that is killed or frozen under the gateway costs those who need it
//! their answer, for a bounded time, and nobody anything else: nothing is acknowledged that is not
//! safe, nobody is told that he or his token is unknown, and it may come back at any time.
//!
//! Method: private servers, killed (-9) and started again, stopped and continued, while clients of
//! two protocols ask for everything that the store takes part in.

mod common;
mod fault;
#[path = "../storage/tests/external/servers.rs"]
mod servers;

use codec::simple_im::client::To;
use codec::{MessageId, UserId};
use common::{Ask, Client, Gateway, ImClient, ImSeen, PASSWORD, SILENCE, Seen, Setup, Want};
use common::{eventually, id, phone};
use fault::{Healthy, collect};
use servers::Servers;

/// Who is away; open logins on the binary side, where nobody else is a user of the store.
const AWAY: u32 = 50;

#[test]
fn a_redis_that_is_gone_acknowledges_and_denies_nothing_until_it_is_back() {
    let Some(mut servers) = Servers::start() else { return };
    let gateway = gateway(&servers);
    let token = gateway.token(1);
    let mut ann = gateway.login(10);
    let healthy = Healthy::talk(&gateway);
    eventually("two are talking", || healthy.rounds() > 0);
    let mut sent = Sent::default();
    for trouble in [Trouble::Killed, Trouble::Frozen] {
        sent.publish(&mut ann, 100);
        match trouble {
            Trouble::Killed => servers.redis.kill(),
            Trouble::Frozen => servers.redis.signal("-STOP"),
        }
        // Some were acknowledged before; of what is said from here on nothing is.
        sent.take_acks(&mut ann);
        sent.publish(&mut ann, 10);
        ann.expect_silence();
        let told = Told::of(&gateway, &token);
        assert_eq!(told.failed, "[response] status = 2", "{trouble:?}");
        assert_eq!(told.offline, (Some(503), String::new()), "{trouble:?}");
        assert_eq!(told.login, "[[response]] status = 3 reason = \"Unkown Error\"", "{trouble:?}");
        let mut late = ImClient::dial(&gateway, 1, "ipad");
        late.send_login(true, &token);
        late.expect(ImSeen::End);
        match trouble {
            Trouble::Killed => servers.redis.run(&[]),
            Trouble::Frozen => servers.redis.signal("-CONT"),
        }
        sent.resend(&mut ann);
        eventually("all is well", || Told::of(&gateway, &token).is_well());
        let mut back = ImClient::dial(&gateway, 1, "ipad");
        back.send_login(true, &token);
        back.expect_reply("reconnect", None);
    }
    collect(&mut gateway.login(AWAY), &sent.safe);
    healthy.assert_unaffected();
}

#[test]
fn a_postgres_that_is_gone_denies_nobody_and_stops_no_message() {
    let Some(mut servers) = Servers::start() else { return };
    let gateway = gateway(&servers);
    let token = gateway.token(1);
    let mut ann = ImClient::dial(&gateway, 1, "android");
    ann.login(&token);
    let healthy = Healthy::talk(&gateway);
    eventually("two are talking", || healthy.rounds() > 0);
    let ben = To::User(UserId(2));
    let bens = gateway.token(2);
    for (round, trouble) in [Trouble::Killed, Trouble::Frozen].into_iter().enumerate() {
        match trouble {
            Trouble::Killed => servers.postgres.kill(),
            Trouble::Frozen => drop(servers.postgres.signal("-STOP")),
        }
        let told = Told::of(&gateway, &token);
        assert_eq!(told.login, "[[response]] status = 3 reason = \"Unkown Error\"", "{trouble:?}");
        assert_eq!(told.user, (Some(503), String::new()), "{trouble:?}");
        // What Redis alone can do goes on.
        assert!(told.failed.contains("IM is online"), "{trouble:?}: {}", told.failed);
        assert_eq!(told.offline.0, Some(200), "{trouble:?}");
        let text = format!("round {round}");
        ann.say_safely("a_02", ben, &text);
        let mut away = ImClient::dial(&gateway, 2, "ipad");
        away.send_login(true, &bens);
        away.expect_reply("reconnect", None);
        away.take_push(&text);
        drop(away);
        match trouble {
            Trouble::Killed => servers.postgres.run(),
            Trouble::Frozen => drop(servers.postgres.signal("-CONT")),
        }
        eventually("all is well", || Told::of(&gateway, &token).is_well());
        eventually("he is away", || gateway.metric("ringpost_sessions") == 3);
    }
    healthy.assert_unaffected();
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Killed,
    Frozen,
}

/// Users 1 and 2 with passwords on the simple-im side, anybody on the binary side.
fn gateway(servers: &Servers) -> Gateway {
    let setup = Setup::new().everyone().shards(2).external(&servers.config());
    let setup = (1..=2).fold(setup, Setup::local_person);
    let setup = setup.set("auth.mode", "\"open\"").set("protocol.simple-im.auth", "\"local\"");
    // Whoever is there and answers, however late on a busy machine, has no use for the store.
    setup.set("delivery.persist_after_ms", 60_000).start()
}

/// Messages to [`AWAY`].
#[derive(Default)]
struct Sent {
    all: u32,
    /// Those that were acknowledged.
    safe: Vec<MessageId>,
}

impl Sent {
    fn publish(&mut self, ann: &mut Client, count: u32) {
        for _ in 0..count {
            self.all += 1;
            ann.publish(Want::User(AWAY), id(self.all), "are you there?");
        }
    }

    /// Those that have come or come soon.
    fn take_acks(&mut self, ann: &mut Client) {
        while let Some(seen) = ann.see(SILENCE) {
            let Seen::Ack(_, id) = seen else { panic!("{seen:?} is no acknowledgement") };
            self.safe.push(id);
        }
    }

    /// What was not acknowledged, again and again until it is.
    fn resend(&mut self, ann: &mut Client) {
        eventually("all are safe", || {
            let missing: Vec<_> =
                (1..=self.all).map(id).filter(|id| !self.safe.contains(id)).collect();
            for id in &missing {
                ann.publish(Want::User(AWAY), *id, "are you there?");
            }
            self.take_acks(ann);
            missing.is_empty()
        });
    }
}

/// What user 1 is told over HTTP, whose token this is.
struct Told {
    failed: String,
    offline: (Option<u16>, String),
    login: String,
    user: (Option<u16>, String),
}

impl Told {
    fn of(gateway: &Gateway, token: &str) -> Self {
        let ask = |ask: Ask<'_>| ask.send(gateway.site().http());
        let body = format!("token={}", token.replace('+', "%2B"));
        let person = format!("phone={}&password={PASSWORD}&device=web", phone(1));
        let offline = ask(Ask::post("/offline", &body));
        let user = ask(Ask::get("/user/id/2").with(&format!("Cookie: token={token}\r\n")));
        Self {
            failed: ask(Ask::post("/server/failed", &body)).text(),
            offline: (offline.status(), offline.text()),
            login: ask(Ask::post("/server/login", &person)).text(),
            user: (user.status(), user.text()),
        }
    }

    fn is_well(&self) -> bool {
        let denied = [&self.failed, &self.offline.1, &self.login, &self.user.1];
        assert!(denied.iter().all(|text| !text.contains("Token error")), "a false denial");
        self.failed.contains("IM is online")
            && self.offline.0 == Some(200)
            && self.login.starts_with("[[response]] status = 0 ")
            && self.user.0 == Some(200)
    }
}
