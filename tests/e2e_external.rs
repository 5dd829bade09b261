//! The external store under the real program, with servers of its own or those of `tests/run`: what
//! an original simple_im server has left in Redis reaches its users, and so does what they say.

mod common;
#[path = "../storage/tests/external/servers.rs"]
mod servers;

use codec::UserId;
use codec::simple_im::client::To;
use common::{Ask, Gateway, ImClient, ImSeen, Setup, eventually};
use redis::Commands as _;
use servers::Place;

fn setup(place: &Place) -> Setup {
    Setup::new().everyone().shards(2).external(&place.config)
}

#[test]
fn what_an_original_server_has_left_comes_at_the_login_in_order_and_leaves_with_its_acks() {
    let Some(place) = Place::new() else { return };
    let mut redis = place.redis();
    let _: () = redis
        .set("offline_2_m3", "[[m]] id = \"m3\" c = \"3\" to = 2 from = 1 ts = 1445990000")
        .expect("redis");
    let sent = "[m.from] device = \"ipad\" id = 1 [m.to] id = 2";
    for element in [
        &*format!("[m] c = \"1\" id = \"a_02\" {sent}"),
        "offline_2_expired",
        &*format!("[m] c = \"2\" id = \"a_02\" ts = 1443856541 {sent}"),
        "offline_2_m3",
        "what nobody can read [",
    ] {
        let _: () = redis.rpush("offline_2", element).expect("redis");
    }
    let gateway = setup(&place).start();
    let to = To::User(UserId(2));
    let mut ann = ImClient::logged_in(&gateway, 1);
    ann.say_safely("a_02", to, "4");
    let mut ben = ImClient::logged_in(&gateway, 2);
    for text in ["1", "2", "3", "4"] {
        let push = ben.take_push(text);
        assert_eq!((push.from, push.to), (Some(1), to));
    }
    ann.say("a_03", to, "live");
    ben.take_push("live");
    eventually("the list is empty", || redis.llen::<_, u64>("offline_2") == Ok(0));
    let aside: Vec<String> = redis.lrange("ringpost_aside_0_2", 0, -1).expect("redis");
    assert_eq!(aside, ["offline_2_expired", "what nobody can read ["]);
    let imported = "ringpost_store_imports_total{result=\"message\"}";
    eventually("it is counted", || gateway.metric(imported) == 3);
}

#[test]
fn who_registers_over_http_logs_in_there_and_over_tcp_and_finds_what_was_said_meanwhile() {
    let Some(place) = Place::new() else { return };
    let gateway = setup(&place).set("auth.mode", "\"local\"").start();
    let (mut ann, _) = register(&gateway, "ann", "18500000001");
    let (mut ben, token) = register(&gateway, "ben", "18500000002");
    let (user, to) = (ben.user, To::User(UserId(ben.user)));
    ann.say("a_02", to, "hello");
    ben.take_push("hello");
    ann.expect(ImSeen::Ack("a_02".into()));
    drop(ben);
    eventually("he is away", || gateway.metric("ringpost_sessions") == 1);
    for text in ["one", "two"] {
        ann.say_safely("a_02", to, text);
    }
    // All of it outlives the gateway.
    let gateway = gateway.stop().1.start();
    let mut ben = ImClient::dial(&gateway, user, "ipad");
    ben.send_login(true, &token);
    ben.expect_reply("reconnect", None);
    for text in ["one", "two"] {
        assert_eq!(ben.take_push(text).from, Some(ann.user));
    }
}

/// A new user, logged in, and his token.
fn register(gateway: &Gateway, name: &str, phone: &str) -> (ImClient, String) {
    let post = |path, body: &str| Ask::post(path, body).send(gateway.site().http());
    let person = format!("phone={phone}&password=of {name}");
    let made = post("/user", &format!("name={name}&{person}"));
    assert_eq!(made.text(), "[[response]] status = 0");
    let again = post("/user", &format!("name={name}&{person}"));
    assert_eq!(again.text(), "[[response]] status = 1 reason = \"User Exist\"");
    let wrong = post("/server/login", &format!("phone={phone}&password=of nobody"));
    assert_eq!(wrong.text(), "[response] status = 1");
    let told = post("/server/login", &person);
    let text = told.text();
    assert!(text.starts_with("[response] status = 0 "), "{text}");
    let (_, id) = text.rsplit_once(" id = ").expect("an id");
    let token = told.quoted("token");
    let mut client = ImClient::dial(gateway, id.parse().expect("a number"), "ipad");
    client.login(&token);
    (client, token)
}
