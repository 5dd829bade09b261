//! What the simple_im system reads and writes: its lists and hashes in Redis, its tables in
//! PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use codec::{GroupId, GroupKey, TenantId, UserId, UserKey};
use redis::Commands as _;
use storage::Admin as _;
use storage::accounts::{GroupChange, TOKEN_TTL};
use storage::admin::NewUser;
use storage::auth::Verified;
use storage::{Accounts, ExternalConfig, ExternalStore, Store};

use crate::forms::*;
use crate::logins::log_in;
use crate::servers::{Place, Sql};
use crate::{ask_until, token};

#[test]
fn a_users_list_holds_the_packets_that_wait_for_him() {
    let Some(place) = Place::new() else { return };
    let mut store = place.open();
    let elsewhere = UserKey { tenant: TenantId(3), id: UserId(2) };
    let list = |key: &str| -> Vec<String> { place.redis().lrange(key, 0, -1).unwrap() };
    store.write(&[
        append_message(user(2), 1, text_from(user(1), user(2), "hello")),
        append_message(user(2), 2, text_from(user(1), user(2), "say \"hi\"")),
        append_message(user(2), 3, text_from(user(1), user(2), "bye")),
        append_message(elsewhere, 4, text_from(user(1), elsewhere, "there")),
    ]);
    let found = list("offline_2");
    assert_eq!(found.len(), 3);
    assert!(found[0].starts_with("[m] "), "{}", found[0]);
    for part in ["c = \"hello\"", "ts = 1", "[m.from] id = 1", "[m.to] id = 2"] {
        assert!(found[0].contains(part), "{part} in {}", found[0]);
    }
    assert!(found[1].contains("\\\"hi\\\""), "{}", found[1]);
    assert_eq!(list("t3_offline_2").len(), 1);
    store.write(&[delete(user(2), 2)]);
    assert_eq!(list("offline_2"), [&*found[0], &*found[2]]);
    store.write(&[dead(user(2), 1)]);
    assert_eq!(list("offline_2"), [&*found[2]]);
    let letter = store.dead_letters(0, 1).unwrap()[0].id;
    store.requeue(&[letter]).unwrap();
    assert_eq!(list("offline_2"), [&*found[0], &*found[2]], "back in its place");
    store.offline_clear(UserId(2), &[1, 3]).unwrap();
    assert!(list("offline_2").is_empty());
}

#[test]
fn a_groups_message_is_in_the_list_of_each_recipient() {
    let Some(place) = Place::new() else { return };
    let mut store = place.open();
    let shared = to_group(4, group(7), b"all");
    store.write(&[
        append_message(user(1), 1, shared.clone()),
        append_message(user(2), 2, shared.clone()),
    ]);
    for key in ["offline_1", "offline_2"] {
        let list: Vec<String> = place.redis().lrange(key, 0, -1).unwrap();
        assert!(list[0].starts_with("[gm] ") && list[0].contains("[gm.group] id = 7"), "{list:?}");
    }
    store.write(&[delete(user(1), 1), delete(user(2), 2)]);
    let keys: Vec<String> = place.redis().keys("*").unwrap();
    assert_eq!(keys, ["ringpost_totals"], "nothing is left");
}

#[test]
fn a_list_that_is_none_or_was_cleared_by_others_does_not_matter() {
    let Some(place) = Place::new() else { return };
    let mut store = place.open();
    let _: () = place.redis().set("offline_1", "text").unwrap();
    assert_eq!(store.write(&[append(user(1), 1, b"x"), append(user(1), 2, b"")]), [OK, OK]);
    assert_eq!(store.write(&[delete(user(1), 1)]), [OK]);
    let _: () = place.redis().del("offline_1").unwrap();
    assert_eq!(seqs(&mut store, user(1)), [2], "our own rows are the truth");
}

#[test]
fn what_others_have_put_before_a_message_stays_when_that_goes() {
    let Some(place) = Place::new() else { return };
    let mut store = place.open();
    assert_eq!(store.write(&[append(user(1), 1, b"x"), append(user(1), 2, b"")]), [OK, OK]);
    let mut redis = place.redis();
    let _: () = redis.lpush("offline_1", "theirs").unwrap();
    assert_eq!(store.write(&[delete(user(1), 1)]), [OK]);
    let list: Vec<String> = redis.lrange("offline_1", 0, -1).unwrap();
    assert_eq!((list.len(), &*list[0]), (2, "theirs"));
    assert_eq!(store.write(&[delete(user(1), 2)]), [OK]);
    assert_eq!(redis.lrange("offline_1", 0, -1), Ok(vec!["theirs".to_owned()]));
}

#[test]
fn tokens_are_the_documented_hashes_and_expire_until_the_login() {
    let Some(place) = Place::new() else { return };
    let mut store = place.open();
    let now = 1_800_000_000_000;
    store.put_token(b"a+b/c", &token(5), TOKEN_TTL, now).unwrap();
    let mut redis = place.redis();
    for (field, value) in
        [("ip", "10.0.0.1"), ("port", "1987"), ("id", "5"), ("user_id", "5"), ("device", "ipad")]
    {
        let found: String = redis.hget("client_a+b/c", field).unwrap();
        assert_eq!(found, value, "{field}");
    }
    let ttl: i64 = redis.ttl("client_a+b/c").unwrap();
    assert!((98..=100).contains(&ttl), "{ttl}");
    assert_eq!(store.persist_token(b"a+b/c", UserId(5), b"ipad", now + 1), Ok(true));
    assert_eq!(redis.ttl::<_, i64>("client_a+b/c"), Ok(-1));
    let again = store.persist_token(b"a+b/c", UserId(5), b"ipad", now + 2);
    assert_eq!(again, Ok(true), "permanent it stays");
    // One that another server has made.
    let _: () = redis.hset_multiple("client_other", &[("ip", "1.2.3.4"), ("id", "6")]).unwrap();
    let found = Accounts::token(&mut store, b"other", now).unwrap().unwrap();
    assert_eq!((found.user, found.permanent), (UserId(6), true));
    let mut third = place.open().for_tenant(TenantId(3));
    third.put_token(b"x", &token(5), TOKEN_TTL, now).unwrap();
    assert_eq!(redis.exists::<_, bool>("t3_client_x"), Ok(true));
    assert_eq!(Accounts::token(&mut store, b"x", now), Ok(None), "another tenant's");
    store.put_token(b"short", &token(5), Duration::from_millis(1), now).unwrap();
    let gone = ask_until(|| Accounts::token(&mut store, b"short", now), |t| *t == Ok(None));
    assert_eq!(gone, Ok(None));
}

/// Made as the original system makes them, with a user, his friend, and a group of both.
fn original(sql: &Sql) {
    sql.run(
        "CREATE TABLE users (id SERIAL PRIMARY KEY, name VARCHAR(20) NOT NULL,
             phone CHAR(11) NOT NULL, password CHAR(32) NOT NULL, salt CHAR(16) NOT NULL,
             updated_at TIMESTAMP NOT NULL, created_at TIMESTAMP NOT NULL);
         CREATE UNIQUE INDEX ON users (phone);
         CREATE TABLE groups (id SERIAL PRIMARY KEY, name VARCHAR(20) NOT NULL,
             creater_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
             updated_at TIMESTAMP NOT NULL, created_at TIMESTAMP NOT NULL);
         CREATE TABLE group_members (group_id INTEGER REFERENCES groups (id) ON DELETE CASCADE,
             user_id INTEGER REFERENCES users (id) ON DELETE CASCADE,
             updated_at TIMESTAMP NOT NULL, created_at TIMESTAMP NOT NULL);
         CREATE TABLE user_relations (user_id INTEGER REFERENCES users (id) ON DELETE CASCADE,
             friend_user_id INTEGER REFERENCES users (id) ON DELETE CASCADE,
             updated_at TIMESTAMP NOT NULL, created_at TIMESTAMP NOT NULL);",
    );
    insert_user(sql, "alice", "18501260698");
    insert_user(sql, "bob", "13833665577");
    sql.run(
        "INSERT INTO groups (name, creater_id, updated_at, created_at)
             VALUES ('friends', 1, now(), now());
         INSERT INTO group_members VALUES (1, 1, now(), now()), (1, 2, now(), now()),
             (1, 2, now(), now());
         INSERT INTO user_relations VALUES (1, 2, now(), now()), (2, 1, now(), now());",
    );
}

/// The password is 888888.
fn insert_user(sql: &Sql, name: &str, phone: &str) {
    sql.run(&format!(
        "INSERT INTO users (name, phone, password, salt, updated_at, created_at)
         VALUES ('{name}', '{phone}', md5('888888' || 'c2FsdHNhbHRzYWx0'), 'c2FsdHNhbHRzYWx0',
             now(), now())"
    ));
}

fn members(store: &mut ExternalStore, id: u32) -> Vec<u32> {
    let group = GroupKey { tenant: TenantId(0), id: GroupId(id) };
    let mut members: Vec<u32> = store.members(group).unwrap().iter().map(|id| id.0).collect();
    members.sort_unstable();
    members
}

fn passes(store: &mut ExternalStore, phone: &str, password: &str) -> bool {
    // Nothing is remembered: each login is checked against what is in the tables.
    let verified = Arc::new(Verified::new(0, Duration::ZERO));
    log_in(store, &verified, phone, password).is_ok()
}

#[test]
fn a_database_of_the_original_system_is_taken_over_and_stays_its_own() {
    let Some(place) = Place::new() else { return };
    let sql = place.sql();
    original(&sql);
    let mut store = place.open();
    assert!(passes(&mut store, "18501260698", "888888"));
    assert!(!passes(&mut store, "18501260698", "888889"));
    assert_eq!(members(&mut store, 1), [1, 2]);
    let contacts = store.contacts_after(UserId(1), 0).unwrap();
    assert_eq!(contacts.iter().map(|c| c.account.id.0).collect::<Vec<_>>(), [2]);
    let later = "SELECT id, name, phone, avatar FROM users ORDER BY id LIMIT 1";
    assert_eq!(sql.rows(later), ["1|alice|18501260698|"], "as its later clients read them");
    // It goes on writing its tables.
    insert_user(&sql, "bob", "13800000000");
    assert!(passes(&mut store, "13800000000", "888888"), "the second of that name");
    let found = store.user_by_name(TenantId(0), b"bob").unwrap().unwrap();
    assert_eq!(found.id, UserId(2), "a name means the first");
    sql.run("INSERT INTO group_members VALUES (1, 3, now(), now())");
    assert_eq!(members(&mut store, 1), [1, 2, 3]);
    assert_eq!(store.changed(), Ok(true));
    sql.run("DELETE FROM group_members WHERE user_id = 3");
    sql.run("UPDATE users SET password = md5('other' || salt) WHERE id = 2");
    assert_eq!(members(&mut store, 1), [1, 2]);
    assert!(passes(&mut store, "13833665577", "other"));
    sql.run("DELETE FROM users WHERE id = 1");
    assert_eq!(store.user_by_id(UserId(1)), Ok(None));
    assert_eq!(members(&mut store, 1), [0; 0], "its groups go with their creator");
}

#[test]
fn what_has_a_place_in_its_tables_is_written_there_too() {
    let Some(place) = Place::new() else { return };
    let mut store = place.open();
    let sql = place.sql();
    let alice = store.create_user(b"alice", b"18501260698", "hash").unwrap().unwrap();
    let bob = store.create_user(b"bob", b"13833665577", "hash").unwrap().unwrap();
    let nobody = NewUser {
        key: user(70_000),
        name: b"\xff"[..].into(),
        password_hash: String::new(),
        phone: None,
    };
    store.add_user(nobody).unwrap();
    let users = sql.rows("SELECT id, name, phone, password FROM users ORDER BY id");
    let stars = "*".repeat(32);
    assert_eq!(
        users,
        [format!("1|alice|18501260698|{stars}"), format!("2|bob|13833665577|{stars}")]
    );
    insert_user(&sql, "carol", "13800000000");
    assert_eq!(sql.rows("SELECT id FROM users WHERE name = 'carol'"), ["3"], "the next id is free");
    let members = [bob, UserId(70_000)];
    let made = Accounts::create_group(&mut store, b"friends", alice, &members).unwrap();
    assert_eq!(made.members.len(), 3);
    let id = made.id;
    assert_eq!(sql.rows("SELECT id, name, creater_id FROM groups"), [format!("{id}|friends|1")]);
    let there = "SELECT user_id FROM group_members ORDER BY user_id";
    assert_eq!(sql.rows(there), ["1", "2"], "who is no user there is not");
    assert_eq!(store.leave_group(id, alice), Ok(GroupChange::Done));
    assert_eq!(sql.rows("SELECT creater_id FROM groups"), ["2"]);
    assert_eq!(sql.rows(there), ["2"]);
    store.ask_contact(alice, bob, b"please", 0).unwrap();
    store.accept_contact(bob, alice).unwrap().unwrap();
    assert_eq!(sql.rows("SELECT count(*) FROM user_relations"), ["2"]);
    assert_eq!(store.delete_contact(alice, bob), Ok(true));
    assert_eq!(sql.rows("SELECT count(*) FROM user_relations"), ["0"]);
    store.delete_user(UserKey { tenant: TenantId(0), id: bob }).unwrap();
    assert_eq!(sql.rows("SELECT name FROM users ORDER BY id"), ["alice", "carol"]);
}

#[test]
fn an_old_hash_is_upgraded_only_if_asked_and_stays_where_it_was() {
    let Some(place) = Place::new() else { return };
    let sql = place.sql();
    original(&sql);
    let mut store = place.open();
    let hash = "SELECT substr(password_hash, 1, 8) FROM ringpost_users WHERE id = 1";
    assert!(passes(&mut store, "18501260698", "888888"));
    assert_eq!(sql.rows(hash), ["$simple-"]);
    let md5 = sql.rows("SELECT password, salt FROM users WHERE id = 1");
    let config = ExternalConfig { upgrade_hashes: true, ..place.config.clone() };
    let mut store = ExternalStore::open(&config).unwrap();
    assert!(!passes(&mut store, "18501260698", "wrong"));
    assert_eq!(sql.rows(hash), ["$simple-"]);
    assert!(passes(&mut store, "18501260698", "888888"));
    assert_eq!(sql.rows(hash), ["$argon2i"]);
    assert!(passes(&mut store, "18501260698", "888888"));
    assert_eq!(sql.rows("SELECT password, salt FROM users WHERE id = 1"), md5);
    sql.run("UPDATE users SET password = md5('other' || salt) WHERE id = 1");
    assert!(passes(&mut store, "18501260698", "other"), "changed by the original system");
    assert!(!passes(&mut store, "18501260698", "888888"));
}
