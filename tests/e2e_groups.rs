//! Groups through the real program: fan-out over shards, parts, members from the store and from a
//! real Redis.

mod common;
#[path = "../storage/tests/external/servers.rs"]
mod servers;

use std::time::Duration;

use codec::PublishKind::{Group, GroupPart, User};
use codec::binary::client::Tail;
use common::{Client, Gateway, Seen, Setup, Want, eventually, id};
use redis::Commands as _;
use servers::Redis;

const PHONE: Tail<'_> = Tail::Terminal { role: 2, client: 2 };

fn logins(gateway: &Gateway, users: impl IntoIterator<Item = u32>) -> Vec<Client> {
    users.into_iter().map(|user| gateway.login(user)).collect()
}

#[test]
fn group_messages_reach_every_member_on_every_shard_once() {
    let members: Vec<u32> = (1..=40).collect();
    let setup = Setup::new().shards(3).patient().group(7, &members);
    let gateway = setup.start();
    let mut clients = logins(&gateway, members);
    for n in 0..5 {
        let sender = n as usize * 7;
        clients[sender].publish(Want::Group(7), id(n), "to all");
        for (at, client) in clients.iter_mut().enumerate() {
            if at != sender {
                client.take_push(id(n), "to all");
            }
        }
        clients[sender].expect_ack(Group, id(n));
    }
}

#[test]
fn group_message_is_safe_only_once_it_is_safe_for_every_member() {
    // Goal: an offline member's copy is stored, a silent member's too, before the sender hears.
    let gateway = Setup::new().shards(3).group(7, &[1, 2, 3, 4]).start();
    let mut sender = gateway.login(1);
    let mut silent = gateway.login(2);
    let mut quick = gateway.login(3);
    sender.publish(Want::Group(7), id(1), "to all");
    silent.expect_push(id(1), "to all");
    quick.take_push(id(1), "to all");
    sender.expect_ack(Group, id(1));
    let site = gateway.kill();
    let gateway = site.start();
    for user in [2, 4] {
        gateway.login(user).take_push(id(1), "to all");
    }
}

#[test]
fn push_form_follows_the_client() {
    let gateway = Setup::new().shards(2).group(7, &[1, 2, 3]).start();
    let mut phone = gateway.login_as(2, PHONE);
    let mut plain = gateway.login(3);
    let mut sender = gateway.login(1);
    let group_push = |n| Seen::GroupPush { group: 7, id: id(n), body: b"to all".to_vec() };
    sender.publish(Want::Group(7), id(1), "to all");
    phone.expect(group_push(1));
    phone.ack(Group, id(1));
    plain.take_push(id(1), "to all");
    sender.expect_ack(Group, id(1));
    // A part is pushed like a group message: nobody acknowledges the other form.
    sender.publish(Want::Part(7, &[2]), id(2), "to all");
    phone.expect(group_push(2));
    phone.ack(GroupPart, id(2));
    sender.expect_ack(GroupPart, id(2));
}

#[test]
fn part_goes_to_the_named_members_only() {
    let gateway = Setup::new().shards(3).group(7, &[1, 2, 3, 4]).start();
    let mut clients = logins(&gateway, 1..=5);
    // 3 twice, 5 is no member, 1 is the sender.
    clients[0].publish(Want::Part(7, &[3, 5, 3, 2, 1]), id(1), "psst");
    clients[1].take_push(id(1), "psst");
    clients[2].take_push(id(1), "psst");
    clients[0].expect_ack(GroupPart, id(1));
    clients[0].publish(Want::Group(7), id(2), "the barrier");
    for client in &mut clients[1..4] {
        client.take_push(id(2), "the barrier");
    }
    clients[0].expect_ack(Group, id(2));
    clients[4].expect_silence();
    clients[0].publish_safely(Want::Part(7, &[]), id(3), "nobody");
}

#[test]
fn resent_group_message_is_not_delivered_again() {
    let gateway = Setup::new().shards(3).group(7, &[1, 2, 3]).start();
    let mut clients = logins(&gateway, 1..=3);
    clients[0].publish(Want::Group(7), id(1), "once");
    clients[1].take_push(id(1), "once");
    clients[2].take_push(id(1), "once");
    clients[0].expect_ack(Group, id(1));
    clients[0].publish_safely(Want::Group(7), id(1), "once");
    clients[1].expect_silence();
    // Not the same message: another target.
    clients[0].publish(Want::User(2), id(1), "once");
    clients[1].take_push(id(1), "once");
    clients[0].expect_ack(User, id(1));
}

#[test]
fn members_changed_by_command_count_within_seconds() {
    let gateway = Setup::new().group(7, &[1, 2]).start();
    let mut sender = gateway.login(1);
    let (mut ben, mut eve) = (gateway.login(2), gateway.login(3));
    sender.publish(Want::Group(7), id(0), "the old members");
    ben.take_push(id(0), "the old members");
    sender.expect_ack(Group, id(0));
    gateway.site().good(&["group", "add", "--id", "7", "--members", "3"]);
    let mut n = 0;
    eventually("the new member hears", || {
        n += 1;
        sender.publish(Want::Group(7), id(n), "are you in?");
        ben.take_push(id(n), "are you in?");
        let heard = eve.see(Duration::from_millis(200)).is_some();
        if heard {
            eve.ack(User, id(n));
        }
        sender.expect_ack(Group, id(n));
        heard
    });
}

#[test]
fn members_come_from_redis_sets_and_its_outage_costs_no_acknowledged_message() {
    let Some(mut redis) = Redis::start() else { return };
    let url = format!("{}?db=1", redis.url());
    // Members that are no ids are skipped.
    let members = ["1", "2", "3", "somebody", "99999999999"];
    assert_eq!(servers::connect(&url).sadd("im_group:4000000000", &members), Ok(5));
    let setup = Setup::new().shards(2).set("groups.source", "\"redis\"");
    let setup = setup.set("groups.redis", format!("{url:?}")).set("groups.cache_ms", 0);
    let gateway = setup.start();
    let group = Want::Group(4_000_000_000);
    let mut sender = gateway.login(1);
    let (mut ben, mut eve) = (gateway.login(2), gateway.login(3));
    sender.publish(group, id(1), "from Redis");
    ben.take_push(id(1), "from Redis");
    eve.take_push(id(1), "from Redis");
    sender.expect_ack(Group, id(1));

    // The business side takes her out.
    assert_eq!(servers::connect(&url).srem("im_group:4000000000", "3"), Ok(1));
    sender.publish(group, id(2), "without her");
    ben.take_push(id(2), "without her");
    sender.expect_ack(Group, id(2));
    eve.expect_silence();

    redis.kill();
    sender.publish(group, id(3), "into the dark");
    sender.expect_silence();
    sender.publish(Want::User(2), id(4), "others go on");
    ben.take_push(id(4), "others go on");
    sender.expect_ack(User, id(4));

    redis.run(&[]);
    eventually("a resend gets through", || {
        sender.publish(group, id(3), "into the dark");
        let seen = ben.see(Duration::from_millis(200));
        let push = Seen::Push { id: id(3), body: b"into the dark".to_vec() };
        assert!(seen.is_none() || seen == Some(push), "{seen:?}");
        seen.is_some()
    });
    ben.ack(User, id(3));
    sender.expect_ack(Group, id(3));
}
