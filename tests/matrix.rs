//! Everyone talks to everyone: every ordered pair of protocols in every situation, through the real
//! program over real sockets, and the table of what came of it, `docs/matrix.md`.
//!
//! Messages are never stored for silence here, so that a sender's acknowledgement proves that his
//! receiver's own way of acknowledging counts.

mod common;

use std::fmt::Write as _;

use common::{
    Gateway, Heard, Language, Person, Said, Setup, To, eventually, expect_silence, greet,
};

/// A sender and a receiver.
type Pair = (Language, Language);

#[test]
fn every_pair_of_protocols_in_every_situation_is_as_documented() {
    let pairs: Vec<Pair> = Language::pairs().collect();
    let setup = (0..pairs.len() as u32).fold(setup(), |setup, pair| {
        setup.group(GROUP + pair, &[IN_GROUP + 2 * pair, IN_GROUP + 2 * pair + 1])
    });
    let gateway = setup.start();
    let (direct, acks) = direct(&gateway, &pairs);
    let offline = offline(&gateway, &pairs);
    let (group, group_acks) = group(&gateway, &pairs);
    let terminals = two_terminals(&gateway, &pairs);
    eventually("every message is safe", || gateway.metric("ringpost_publishes_outstanding") == 0);
    assert_eq!(gateway.metric("ringpost_publishes_failed_total"), 0);

    let mut table = String::from(HEAD);
    for (at, (from, to)) in pairs.iter().enumerate() {
        let ack = match (acks[at], group_acks[at]) {
            (user, group) if user == group => user.to_owned(),
            (user, group) => format!("{user}; {group}"),
        };
        let (from, to) = (from.name(), to.name());
        let cells = [&direct[at], &offline[at], &group[at], &terminals[at], &ack];
        let cells = cells.map(|cell| &**cell).join(" | ");
        let _ = writeln!(table, "| {from} | {to} | {cells} |");
    }
    compare_with_docs(&table);
}

#[test]
fn terminals_of_one_user_on_all_protocols_get_every_message() {
    let gateway = setup().start();
    let mut terminals = Language::ALL.map(|language| Person::login(&gateway, language, 7));
    let mut senders = Language::ALL.map(|language| Person::login(&gateway, language, 10));
    // Whose senders are one user, too: of all four terminals only one hears of its message.
    for (number, sender) in senders.iter_mut().enumerate() {
        let text = format!("to all of you, {number}");
        let said = sender.say(To::User(7), &text);
        for terminal in &mut terminals {
            terminal.take(&text);
        }
        sender.expect_ack(&said);
    }
    expect_silence(terminals.iter_mut().chain(&mut senders));
    eventually("nothing is kept", || gateway.metric("ringpost_deliveries_in_memory") == 0);
}

#[test]
fn whoever_is_the_first_terminal_a_user_is_one_user() {
    // Goal: a number and the name that ends in it are the same user, in whatever order they come.
    let gateway = setup().start();
    let mut sender = Person::login(&gateway, Language::Binary, 1);
    for (at, first) in Language::ALL.into_iter().enumerate() {
        let user = 20 + at as u32;
        let mut first = Person::login(&gateway, first, user);
        let mut others = Language::ALL.map(|other| Person::join(&gateway, other, user, 1, "any"));
        let said = sender.say(To::User(user), "hello");
        first.take("hello");
        for other in &mut others {
            other.take("hello");
        }
        sender.expect_ack(&said);
    }
}

#[test]
fn one_group_has_members_on_all_protocols() {
    let gateway = setup().group(7, &[1, 2, 3, 4]).start();
    let mut members: Vec<Person> = (1..)
        .zip(Language::ALL)
        .map(|(user, language)| Person::login(&gateway, language, user))
        .collect();
    for sender in 0..members.len() {
        let text = format!("to all, from {}", members[sender].user);
        let said = members[sender].say(To::Group(7), &text);
        for at in (0..members.len()).filter(|at| *at != sender) {
            let heard = members[at].take(&text);
            let name = members[sender].name();
            assert_eq!(heard.from, seen_name(members[at].language, &members[sender], &name));
        }
        if members[sender].hears_his_own() {
            members[sender].take(&text);
        }
        members[sender].expect_ack(&said);
    }
    expect_silence(&mut members);
}

#[test]
fn local_users_talk_to_each_other_by_name_on_all_protocols() {
    let gateway = (1..=4).fold(setup(), Setup::local_person).start();
    let token = gateway.token(3);
    let mut people: Vec<Person> = (1..)
        .zip(Language::ALL)
        .map(|(user, language)| Person::join(&gateway, language, user, 0, &token))
        .collect();
    for from in 0..people.len() {
        for to in (0..people.len()).filter(|to| *to != from) {
            let text = format!("{from} to {to}");
            let receiver = people[to].user;
            let said = people[from].say(To::User(receiver), &text);
            let heard = people[to].take(&text);
            // Whoever logs in with a number has a name all the same.
            let name = format!("u{}", people[from].user);
            assert_eq!(heard.from, seen_name(people[to].language, &people[from], &name));
            people[from].expect_ack(&said);
        }
    }
    expect_silence(&mut people);
}

/// Both are there.
fn direct(gateway: &Gateway, pairs: &[Pair]) -> (Vec<String>, Vec<&'static str>) {
    let mut senders = people(gateway, pairs, DIRECT, |pair| pair.0);
    let mut receivers = people(gateway, pairs, DIRECT + 1, |pair| pair.1);
    greet(&mut senders, &mut receivers);
    let said = say_all(&mut senders, &receivers);
    let heard = hear_all(&mut receivers, &said);
    expect_no_early_acks(&mut senders, &receivers);
    confirm_all(&mut receivers, &heard);
    let acks = expect_acks(&mut senders, &said);
    expect_silence(senders.iter_mut().chain(&mut receivers));
    let cells = heard.iter().zip(&senders).zip(&receivers);
    (cells.map(|((heard, sender), receiver)| cell(heard, sender, receiver)).collect(), acks)
}

/// The receiver comes when the message is safe, and comes again when he has it.
fn offline(gateway: &Gateway, pairs: &[Pair]) -> Vec<String> {
    let rows = gateway.metric("ringpost_store_rows_total");
    let updates = gateway.metric("ringpost_store_updates_total");
    let count = pairs.len() as u64;
    let mut senders = people(gateway, pairs, OFFLINE, |pair| pair.0);
    let text = |at: usize| format!("kept {at}");
    let said: Vec<Said> = senders
        .iter_mut()
        .enumerate()
        .map(|(at, sender)| sender.say(To::User(user(OFFLINE + 1, at)), &text(at)))
        .collect();
    expect_acks(&mut senders, &said);
    eventually("all are stored", || gateway.metric("ringpost_store_rows_total") == rows + count);
    let mut receivers = people(gateway, pairs, OFFLINE + 1, |pair| pair.1);
    let mut cells = Vec::new();
    for (at, receiver) in receivers.iter_mut().enumerate() {
        let heard = receiver.take(&text(at));
        assert!(heard.stored || receiver.language != Language::ImDemo, "it waited: {heard:?}");
        cells.push(cell(&heard, &senders[at], receiver));
    }
    expect_silence(senders.iter_mut().chain(&mut receivers));
    eventually("none is stored", || {
        gateway.metric("ringpost_store_updates_total") == updates + count
    });
    drop(receivers);
    expect_silence(&mut people(gateway, pairs, OFFLINE + 1, |pair| pair.1));
    cells
}

/// Both are members of a group.
fn group(gateway: &Gateway, pairs: &[Pair]) -> (Vec<String>, Vec<&'static str>) {
    let member = |at: usize, which: u32| IN_GROUP + 2 * at as u32 + which;
    let join = |which: u32, language: fn(&Pair) -> Language| -> Vec<Person> {
        let people = pairs.iter().enumerate();
        let login = |(at, pair)| Person::login(gateway, language(pair), member(at, which));
        people.map(login).collect()
    };
    let (mut senders, mut receivers) = (join(0, |pair| pair.0), join(1, |pair| pair.1));
    greet(&mut senders, &mut receivers);
    greet(&mut receivers, &mut senders);
    let said: Vec<Said> = senders
        .iter_mut()
        .enumerate()
        .map(|(at, sender)| sender.say(To::Group(GROUP + at as u32), &text_to(at)))
        .collect();
    let heard = hear_all(&mut receivers, &said);
    for (at, sender) in senders.iter_mut().enumerate().filter(|(_, s)| s.hears_his_own()) {
        sender.take(&text_to(at));
    }
    expect_no_early_acks(&mut senders, &receivers);
    confirm_all(&mut receivers, &heard);
    let acks = expect_acks(&mut senders, &said);
    expect_silence(senders.iter_mut().chain(&mut receivers));
    let cells = heard.iter().zip(&senders).zip(&receivers).enumerate();
    let cells = cells.map(|(at, ((heard, sender), receiver))| {
        // The document's simple-im client would not survive a group message that says so.
        let named =
            (receiver.language != Language::SimpleIm).then(|| (GROUP + at as u32).to_string());
        assert_eq!(heard.group, named, "{heard:?}");
        cell(heard, sender, receiver)
    });
    (cells.collect(), acks)
}

/// The receiver has two terminals of the same protocol.
fn two_terminals(gateway: &Gateway, pairs: &[Pair]) -> Vec<String> {
    let mut senders = people(gateway, pairs, TERMINALS, |pair| pair.0);
    let mut firsts = people(gateway, pairs, TERMINALS + 1, |pair| pair.1);
    let mut seconds: Vec<Person> = firsts
        .iter()
        .map(|first| Person::join(gateway, first.language, first.user, 1, "any token"))
        .collect();
    let said = say_all(&mut senders, &firsts);
    let heard = hear_all(&mut firsts, &said);
    let heard_again = hear_all(&mut seconds, &said);
    // One of them is enough.
    confirm_all(&mut seconds, &heard_again);
    expect_acks(&mut senders, &said);
    confirm_all(&mut firsts, &heard);
    expect_silence(senders.iter_mut().chain(&mut firsts).chain(&mut seconds));
    let cells = heard.iter().zip(&senders).zip(&firsts);
    cells.map(|((heard, sender), first)| format!("both: {}", cell(heard, sender, first))).collect()
}

/// One person of each pair.
fn people(
    gateway: &Gateway,
    pairs: &[Pair],
    role: u32,
    language: fn(&Pair) -> Language,
) -> Vec<Person> {
    let people = pairs.iter().enumerate();
    people.map(|(at, pair)| Person::login(gateway, language(pair), user(role, at))).collect()
}

/// Of a pair's person in a role.
fn user(role: u32, pair: usize) -> u32 {
    role * 100 + pair as u32
}

fn text_to(at: usize) -> String {
    format!("hello number {at}, \"quoted\" and \u{e4}\u{6f22}")
}

fn say_all(senders: &mut [Person], receivers: &[Person]) -> Vec<Said> {
    let pairs = senders.iter_mut().zip(receivers).enumerate();
    pairs.map(|(at, (from, to))| from.say(To::User(to.user), &text_to(at))).collect()
}

fn hear_all(receivers: &mut [Person], said: &[Said]) -> Vec<Heard> {
    assert_eq!(receivers.len(), said.len());
    receivers.iter_mut().enumerate().map(|(at, to)| to.hear(&text_to(at))).collect()
}

fn confirm_all(receivers: &mut [Person], heard: &[Heard]) {
    for (receiver, heard) in receivers.iter_mut().zip(heard) {
        receiver.confirm(heard);
    }
}

/// Nobody is told that his message is safe before it is; only TCP has acknowledged by itself.
fn expect_no_early_acks(senders: &mut [Person], receivers: &[Person]) {
    let waiting = senders.iter_mut().zip(receivers);
    let waiting = waiting.filter(|(_, receiver)| receiver.language != Language::SimpleText);
    expect_silence(waiting.map(|(sender, _)| sender));
}

fn expect_acks(senders: &mut [Person], said: &[Said]) -> Vec<&'static str> {
    senders.iter_mut().zip(said).map(|(sender, said)| sender.expect_ack(said)).collect()
}

/// How a receiver's protocol names a sender who is called `name`.
fn seen_name(language: Language, sender: &Person, name: &str) -> Option<String> {
    match language {
        Language::Binary => None,
        Language::SimpleIm => Some(sender.user.to_string()),
        Language::SimpleText | Language::ImDemo => Some(name.to_owned()),
    }
}

/// What the receiver sees of the message, once it is checked who he thinks it is from.
fn cell(heard: &Heard, sender: &Person, receiver: &Person) -> String {
    let expected = seen_name(receiver.language, sender, &sender.name());
    assert_eq!(heard.from, expected, "{heard:?} at a {} client", receiver.language.name());
    let from = match &heard.from {
        None => "no sender",
        Some(from) if from.starts_with('u') => "sender's name",
        Some(_) => "sender's number",
    };
    let stored = if heard.stored { ", stored" } else { "" };
    format!("`{}`, {from}{stored}", heard.form)
}

/// Two shards, and nothing but an acknowledgement or an absent receiver makes a message safe.
fn setup() -> Setup {
    let setup = Setup::new().everyone().shards(2).patient();
    setup.set("delivery.persist_after_ms", 60_000)
}

fn compare_with_docs(table: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/matrix.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, table).expect("the folder can be written");
    }
    let documented = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(table, documented, "UPDATE_DOCS=1 cargo nextest run --test matrix writes it");
}

/// Roles of people: the hundreds of their numbers.
const DIRECT: u32 = 1;
const OFFLINE: u32 = 3;
const TERMINALS: u32 = 5;
/// The first group, and the first member.
const GROUP: u32 = 1_000;
const IN_GROUP: u32 = 2_000;

const HEAD: &str = "\
# Who can talk to whom

Every ordered pair of protocols, in five situations. This file is written by `tests/matrix.rs`,
which has real clients of each protocol talk through the real gateway and notes what the receiver
got; it fails when a cell is no longer so. To write it again:

    UPDATE_DOCS=1 cargo nextest run --test matrix

A cell says in which form the text arrived, exactly once, and how its sender is named there. Logins
are open here, so simple-im users, who log in with a number, have no name: they are named by their
number. With local users everybody has a name.

- *direct*: both are online. The sender's acknowledgement comes when the receiver has acknowledged
  in his own way: by a packet, or on simple-text by his TCP alone.
- *offline, then login*: the message is stored and acknowledged first; it is gone from the store
  once the receiver has it, and does not come again at his next login.
- *group*: a message to a group of both. Only simple-im's sender gets his own, too: the document's
  server sends to every member, those of later revisions to all others.
- *two terminals*: of the receiver, on the same protocol. Both get it; the first acknowledgement
  counts.
- *acknowledgement*: what the sender is told, of a message to a user and of one to a group.

| from | to | direct | offline, then login | group | two terminals | acknowledgement |
|---|---|---|---|---|---|---|
";
