//! What was promised, checked against what the clients see and the disk holds.
//!
//! Owns: one record per message and one log per connection. A breach is written down as text; the
//! first one ends the run. Never: looks into the gateway.

use std::collections::{BTreeMap, BTreeSet};

use codec::binary::MESSAGE_ID;
use codec::{MessageId, PublishKind};
use shards::io::Now;
use shards::io::sim::ClientId;

use super::disk::{Content, Disk};
use super::plan::{GHOST, Layout, Plan};
use super::speech::Pushed;
use super::world::{NAMED_RETRIES, NAMED_RETRY_MS};

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    User(u32),
    Group(u32),
    Part(u32, Vec<u32>),
}

impl To {
    pub fn kind(&self) -> PublishKind {
        match self {
            Self::User(_) => PublishKind::User,
            Self::Group(_) => PublishKind::Group,
            Self::Part(..) => PublishKind::GroupPart,
        }
    }

    /// The group whose conversation this is in.
    fn group(&self) -> Option<u32> {
        match self {
            Self::User(_) => None,
            Self::Group(group) | Self::Part(group, _) => Some(*group),
        }
    }
}

/// A message as its sender makes it.
pub struct Draft {
    /// `None`: the door.
    pub from: Option<u32>,
    /// See [`Layout::Named`].
    pub by_name: bool,
    pub to: To,
    pub poison: bool,
    pub body: Vec<u8>,
}

/// One message of one sender.
#[derive(Debug)]
pub struct Record {
    /// `None`: the door.
    pub from: Option<u32>,
    by_name: bool,
    pub to: To,
    pub body: Vec<u8>,
    pub poison: bool,
    /// Who must have it, and whether a client of his has acknowledged it.
    recipients: BTreeMap<u32, bool>,
    /// The connection of the first transmission.
    first_sent_on: Option<ClientId>,
    transmissions: u32,
    acks: u32,
    /// It was said that it will never be taken over.
    refused: bool,
    /// What the gateway calls it, where that is said.
    called: Option<MessageId>,
}

/// Pushes of one message on one connection.
#[derive(Debug)]
struct Pushes {
    count: u32,
    first: Now,
    acked: Option<Now>,
}

/// What one connection of a client has seen.
#[derive(Debug)]
struct Log {
    user: Option<u32>,
    layout: Layout,
    /// Messages in the order of their first push.
    seen: Vec<usize>,
    pushes: BTreeMap<usize, Pushes>,
    ended: Option<Now>,
    /// It did not read for a while: old copies may come late.
    froze: bool,
    /// Where answers have an order: what it sent, not answered yet.
    unanswered: Vec<usize>,
}

impl Log {
    /// It understands group messages in their own form.
    fn group_form(&self) -> bool {
        matches!(self.layout, Layout::Terminal(_) | Layout::Named)
    }

    fn is_answered_in_order(&self) -> bool {
        matches!(self.layout, Layout::Door | Layout::Named)
    }
}

pub struct Oracle {
    groups: BTreeMap<u32, Vec<u32>>,
    disk: Disk,
    strict: bool,
    /// Clients of several protocols: bodies are texts that begin with their message's number.
    mixed: bool,
    /// A client may have to send a message again although nothing failed.
    may_be_late: bool,
    /// Pushes of one message on one connection at most.
    pushes_max: u32,
    /// A push that comes so much later than its acknowledgement was not on its way before.
    echo_ms: Option<u64>,
    records: Vec<Record>,
    /// The gateway's own names of messages.
    names: BTreeMap<Vec<u8>, usize>,
    logs: BTreeMap<ClientId, Log>,
    /// Connections that have ended, by user.
    ended: BTreeMap<u32, u32>,
    crashed: bool,
    breach: Option<String>,
}

impl Oracle {
    pub fn new(plan: &Plan, disk: &Disk) -> Self {
        Self {
            groups: plan.groups.clone(),
            disk: disk.clone(),
            strict: plan.strict,
            mixed: plan.profiles.iter().any(|profile| profile.layout == Layout::Named),
            may_be_late: false,
            pushes_max: u32::MAX,
            echo_ms: None,
            records: Vec::new(),
            names: BTreeMap::new(),
            logs: BTreeMap::new(),
            ended: BTreeMap::new(),
            crashed: false,
            breach: None,
        }
    }

    /// Without crashes a message is delivered to a terminal once, and repeated so often.
    pub fn expect_retries(&mut self, retries: u32) {
        self.pushes_max = 1 + retries;
    }

    /// Acknowledgements may take longer than senders wait for them.
    pub fn expect_delays(&mut self) {
        self.may_be_late = true;
    }

    /// Bounds how long a copy that was on its way can take where the client reads.
    pub fn expect_echoes_within(&mut self, ms: u64) {
        self.echo_ms = Some(ms);
    }

    /// The gateway has crashed: ids sent to it before are new to the next one.
    pub fn crashed(&mut self) {
        self.crashed = true;
    }

    pub fn breach(&mut self) -> Option<String> {
        self.breach.take()
    }

    pub fn violated(&mut self, what: String) {
        self.breach.get_or_insert(what);
    }

    pub fn messages(&self) -> usize {
        self.records.len()
    }

    /// Second transmissions of the run.
    pub fn resends(&self) -> u32 {
        self.records.iter().map(|record| record.transmissions.saturating_sub(1)).sum()
    }

    pub fn connected(&mut self, id: ClientId, user: Option<u32>, layout: Layout) {
        let log = Log {
            user,
            layout,
            seen: Vec::new(),
            pushes: BTreeMap::new(),
            ended: None,
            froze: false,
            unanswered: Vec::new(),
        };
        self.logs.insert(id, log);
    }

    pub fn froze(&mut self, id: ClientId) {
        self.log(id).froze = true;
    }

    /// Somebody else has become the terminal of a connection.
    pub fn replaced(&mut self, id: ClientId) {
        if self.strict {
            self.violated(format!("{id:?} was replaced, by nobody"));
        }
    }

    pub fn ended(&mut self, id: ClientId, by_client: bool, now: Now) {
        self.log(id).ended = Some(now);
        if let Some(user) = self.log(id).user {
            *self.ended.entry(user).or_default() += 1;
        }
        if self.strict && !by_client {
            self.violated(format!("connection {id:?} ended without a fault"));
        }
    }

    /// What the body of the next message begins with, where it has to be a text.
    pub fn next_text(&self) -> Option<String> {
        self.mixed.then(|| format!("{:0TEXT$x}", self.records.len()))
    }

    /// A new message; its number is its id.
    pub fn compose(&mut self, draft: Draft) -> usize {
        let Draft { from, by_name, to, poison, body } = draft;
        let recipients = self.recipients(from, &to);
        let record = Record {
            from,
            by_name,
            to,
            body,
            poison,
            recipients: recipients.into_iter().map(|user| (user, false)).collect(),
            first_sent_on: None,
            transmissions: 0,
            acks: 0,
            refused: false,
            called: None,
        };
        self.records.push(record);
        self.records.len() - 1
    }

    pub fn record(&self, index: usize) -> &Record {
        &self.records[index]
    }

    /// A client sends a message, again or for the first time.
    pub fn transmitted(&mut self, id: ClientId, index: usize) {
        let record = &mut self.records[index];
        record.transmissions += 1;
        record.first_sent_on.get_or_insert(id);
        let again = record.transmissions > 1;
        let log = self.log(id);
        if log.is_answered_in_order() {
            log.unanswered.push(index);
        }
        if again && self.strict && !self.may_be_late {
            self.violated(format!("message {index} had to be sent again without a fault"));
        }
    }

    /// The gateway acknowledges a publish: it must be safe now.
    /// `called`: what the gateway says that it calls it.
    pub fn publish_acked(
        &mut self,
        id: ClientId,
        message: &MessageId,
        kind: Option<PublishKind>,
        called: Option<&MessageId>,
    ) {
        let Some(index) = self.index_of(message) else {
            return self.violated(format!("{id:?} got an ack for {message:?}, which nobody sent"));
        };
        let user = self.log(id).user;
        let record = &mut self.records[index];
        record.acks += 1;
        let (acks, sent) = (record.acks, record.transmissions);
        if record.from != user || kind.is_some_and(|kind| record.to.kind() != kind) {
            return self.violated(format!("{id:?} got a strange ack {kind:?} for {index}"));
        }
        if record.refused {
            return self.violated(format!("message {index} was refused, and acknowledged"));
        }
        if acks > sent {
            return self.violated(format!("message {index}: {acks} acks, sent {sent} times"));
        }
        self.answered(id, index);
        if let Some(Err(what)) = called.map(|called| self.is_called(index, called)) {
            self.violated(format!("the answer to message {index}: {what}"));
        }
        let disk = self.disk.clone();
        if let Some(user) = self.unsafe_for(index, &disk.content()) {
            let text = format!("message {index} was acknowledged, not safe for user {user}");
            self.violated(text);
        }
    }

    /// The gateway does not take a publish over at the moment.
    pub fn publish_failed(&mut self, id: ClientId, message: &MessageId) {
        match self.index_of(message) {
            Some(index) => self.answered(id, index),
            None => self.violated(format!("{message:?} failed, which nobody sent")),
        }
    }

    /// The gateway will never take a publish over: its sender is not in the group.
    pub fn publish_refused(&mut self, id: ClientId, message: &MessageId) {
        let Some(index) = self.index_of(message) else {
            return self.violated(format!("{message:?} was refused, which nobody sent"));
        };
        self.answered(id, index);
        let record = &mut self.records[index];
        record.acks += 1;
        record.refused = true;
        let group = record.to.group().and_then(|group| self.groups.get(&group));
        let is_member = record.from.is_none_or(|from| group.is_none_or(|m| m.contains(&from)));
        if is_member {
            self.violated(format!("message {index} was refused"));
        }
    }

    /// The gateway pushes a message; gives its number.
    pub fn pushed(&mut self, id: ClientId, push: &Pushed, now: Now) -> Option<usize> {
        let Some(index) = self.index_of_push(push) else {
            self.violated(format!("{id:?} got {push:?}, which nobody sent"));
            return None;
        };
        let checked = self.check_id(id, index, push);
        if let Err(what) = checked.and_then(|()| self.check_push(id, index, push, now)) {
            self.violated(format!("message {index} on {id:?}: {what}"));
        }
        Some(index)
    }

    /// Within the sender's protocol it has his id, but by name; else always the same of the
    /// gateway's.
    fn check_id(&mut self, id: ClientId, index: usize, push: &Pushed) -> Result<(), String> {
        let named = self.log(id).layout == Layout::Named;
        let record = &self.records[index];
        let from = record.from.map_or_else(String::new, |user| format!("u{user}"));
        if push.from.as_ref().is_some_and(|said| *said != from) {
            return Err(format!("it is said to be from {:?}", push.from));
        }
        if named || record.by_name {
            return self.is_called(index, &push.id);
        }
        match self.index_of(&push.id) {
            Some(same) if same == index => Ok(()),
            _ => Err(format!("it has the id {:?}", push.id)),
        }
    }

    /// The gateway has a name for a message: no other's, and the only one unless it was sent again.
    fn is_called(&mut self, index: usize, name: &MessageId) -> Result<(), String> {
        let other = *self.names.entry(name.as_bytes().to_vec()).or_insert(index);
        let record = &mut self.records[index];
        let before = *record.called.get_or_insert(*name);
        if other != index {
            return Err(format!("it is called {name:?}, like message {other}"));
        }
        if before != *name && record.transmissions == 1 {
            return Err(format!("it is called {name:?} and {before:?}"));
        }
        Ok(())
    }

    fn check_push(
        &mut self,
        id: ClientId,
        index: usize,
        push: &Pushed,
        now: Now,
    ) -> Result<(), String> {
        let (pushes_max, echo_ms, strict) = (self.pushes_max, self.echo_ms, self.strict);
        let log = self.logs.get_mut(&id).ok_or("the connection is unknown")?;
        let record = &self.records[index];
        // To a gateway that was started anew it is another message.
        let may_be_new = self.crashed && record.transmissions > 1;
        let user = log.user.ok_or("the door is pushed nothing")?;
        // Other terminals of who speaks to his group by name hear what he says, as a courtesy.
        let members = record.to.group().and_then(|group| self.groups.get(&group));
        let is_his = members.is_some_and(|members| members.contains(&user));
        let by_him = record.by_name && record.from == Some(user);
        let is_echo = by_him && is_his && record.first_sent_on != Some(id);
        if !record.recipients.contains_key(&user) && !is_echo {
            return Err(format!("it is not for user {user}"));
        }
        if record.body != push.body {
            return Err("the body is another".to_owned());
        }
        if push.group != record.to.group().filter(|_| log.group_form()) {
            return Err(format!("its form names the group {:?}", push.group));
        }
        let none = Pushes { count: 0, first: now, acked: None };
        let pushes = log.pushes.entry(index).or_insert(none);
        pushes.count += 1;
        if pushes.count == 1 {
            log.seen.push(index);
        } else if strict {
            return Err("it was pushed again without a fault".to_owned());
        }
        if pushes.count > pushes_max {
            return Err(format!("it was pushed {} times", pushes.count));
        }
        match (pushes.acked, echo_ms) {
            (Some(at), Some(echo_ms))
                if now.ms_since(at) > echo_ms && !log.froze && !may_be_new =>
            {
                Err(format!("pushed again {} ms after its ack", now.ms_since(at)))
            }
            _ => Ok(()),
        }
    }

    /// A client acknowledges a push: from now on the message is its own.
    pub fn receipt(&mut self, id: ClientId, index: usize, now: Now) {
        let log = self.log(id);
        if let Some(pushes) = log.pushes.get_mut(&index) {
            pushes.acked.get_or_insert(now);
        }
        let Some(user) = log.user else { return };
        if let Some(has) = self.records[index].recipients.get_mut(&user) {
            *has = true;
        }
    }

    /// Everything has come to rest: nothing acknowledged is lost, nothing is left over, and the
    /// order was kept.
    pub fn finish(&mut self) {
        let disk = self.disk.clone();
        let content = disk.content();
        let dead = self.dead_letters(&content);
        let rows = self.waiting_for(&content);
        for index in 0..self.records.len() {
            let record = &self.records[index];
            if record.transmissions > 0 && record.acks == 0 {
                self.violated(format!("message {index} was never acknowledged"));
                continue;
            }
            let lost = self.records[index].recipients.iter().find(|(user, has)| {
                !**has && !dead.contains(&(**user, index)) && !rows.contains(&(**user, index))
            });
            if let Some((&user, _)) = lost.filter(|_| self.records[index].acks > 0) {
                self.violated(format!("message {index} was acknowledged, user {user} lost it"));
            }
        }
        let left: Vec<u32> =
            content.rows().map(|(user, _)| user).filter(|&user| user != GHOST).collect();
        if !left.is_empty() {
            self.violated(format!("rows are left in the store, of users {left:?}"));
        }
        let live = self.logs.iter().filter(|(_, log)| log.ended.is_none());
        let waits = live.filter(|(_, log)| !log.unanswered.is_empty()).map(|(id, _)| *id).next();
        if let Some(id) = waits {
            self.violated(format!("{id:?} waits for answers"));
        }
        self.check_order();
    }

    /// The rows of users that come, for the text of a run that does not end.
    pub fn rows_text(&self) -> String {
        let content = self.disk.content();
        let mut text = String::new();
        for (user, row) in content.full_rows().filter(|(user, _)| *user != GHOST) {
            let index = self.index_of(&row.message.id);
            let poison = index.is_some_and(|index| self.records[index].poison);
            let (seq, charges, suspect) = (row.seq, row.charges, row.suspect);
            text += &format!("\nuser {user} seq {seq} message {index:?} poison {poison} ");
            text += &format!("charges {charges} suspect {suspect}");
        }
        text
    }

    pub fn rows_left(&self) -> usize {
        self.disk.content().rows().filter(|(user, _)| *user != GHOST).count()
    }

    /// First pushes on a connection follow the order in which one connection of one sender first
    /// sent the messages of one conversation. One that was sent again may have failed at first, and
    /// one that another connection went on without comes to this one when the store is read.
    fn check_order(&mut self) {
        let mut found = None;
        for (id, log) in &self.logs {
            let mut last = BTreeMap::new();
            for &index in &log.seen {
                let record = &self.records[index];
                if record.transmissions > 1 || self.was_given_up(*id, log.user, index) {
                    continue;
                }
                let conversation = (record.first_sent_on, record.to.group());
                if let Some(before) = last.insert(conversation, index)
                    && before > index
                {
                    found = found.or_else(|| Some(format!("{id:?} got {before} before {index}")));
                }
            }
        }
        if let Some(text) = found {
            self.violated(text);
        }
    }

    /// Another connection of the user may have gone on without its acknowledgement: it was there
    /// for as long as all copies take, or did not read what was sent to it.
    fn was_given_up(&self, here: ClientId, user: Option<u32>, index: usize) -> bool {
        let mut others = self
            .logs
            .iter()
            .filter(|(id, log)| **id != here && log.user == user && log.layout == Layout::Named);
        others.any(|(_, log)| {
            let silent = log.pushes.get(&index).filter(|pushes| pushes.acked.is_none());
            let lived = |first: Now| log.ended.map_or(u64::MAX, |ended| ended.ms_since(first));
            log.froze || silent.is_some_and(|pushes| lived(pushes.first) >= GIVE_UP_MS)
        })
    }

    /// The dead letters, each of which must have had its three failed rounds.
    fn dead_letters(&mut self, content: &Content) -> BTreeSet<(u32, usize)> {
        let mut dead = BTreeSet::new();
        for (user, message) in content.dead_letters() {
            let Some(index) = self.index_of(message) else {
                self.violated(format!("the dead letter {message:?} was never sent"));
                continue;
            };
            let rounds = self.ended.get(&user).copied().unwrap_or(0);
            if rounds < 3 {
                self.violated(format!("message {index} is dead after {rounds} rounds"));
            }
            dead.insert((user, index));
        }
        dead
    }

    fn waiting_for(&self, content: &Content) -> BTreeSet<(u32, usize)> {
        let rows = content.rows();
        rows.filter_map(|(user, id)| Some((user, self.index_of(id)?))).collect()
    }

    /// A recipient for whom the message is neither committed nor acknowledged.
    fn unsafe_for(&self, index: usize, content: &Content) -> Option<u32> {
        let id = id_of(index);
        let mut recipients = self.records[index].recipients.iter();
        recipients
            .find(|(user, has)| !**has && !content.was_committed(**user, &id))
            .map(|(u, _)| *u)
    }

    /// Where answers have an order, it is that of the requests.
    fn answered(&mut self, id: ClientId, index: usize) {
        let log = self.log(id);
        if !log.is_answered_in_order() {
            return;
        }
        if log.unanswered.first() == Some(&index) {
            log.unanswered.remove(0);
        } else {
            self.violated(format!("{id:?}: {index} was answered out of order"));
        }
    }

    fn recipients(&self, from: Option<u32>, to: &To) -> BTreeSet<u32> {
        let members = |group: &u32| -> BTreeSet<u32> {
            let members = self.groups.get(group).cloned().unwrap_or_default();
            let sends = from.is_none_or(|from| members.contains(&from));
            members.into_iter().filter(|&user| sends && Some(user) != from).collect()
        };
        match to {
            To::User(user) => BTreeSet::from([*user]),
            To::Group(group) => members(group),
            To::Part(group, part) => {
                members(group).into_iter().filter(|user| part.contains(user)).collect()
            }
        }
    }

    fn log(&mut self, id: ClientId) -> &mut Log {
        self.logs.get_mut(&id).expect("connected before")
    }

    /// Clients of another protocol than the sender's see an id of the gateway's.
    fn index_of_push(&self, push: &Pushed) -> Option<usize> {
        if !self.mixed {
            return self.index_of(&push.id);
        }
        let text = std::str::from_utf8(push.body.get(..TEXT)?).ok()?;
        let index = usize::from_str_radix(text, 16).ok()?;
        (index < self.records.len()).then_some(index)
    }

    fn index_of(&self, message: &MessageId) -> Option<usize> {
        let text = std::str::from_utf8(message.as_bytes()).ok()?;
        let index = usize::from_str_radix(text, 16).ok()?;
        (index < self.records.len()).then_some(index)
    }
}

/// All copies of a push by name, and the silence after the last.
const GIVE_UP_MS: u64 = (1 + NAMED_RETRIES) * NAMED_RETRY_MS;

/// Digits of a message's number in its body.
const TEXT: usize = 8;

/// The id of a message: its number in 32 hexadecimal digits.
pub fn id_of(index: usize) -> [u8; MESSAGE_ID] {
    let mut id = [0; MESSAGE_ID];
    id.copy_from_slice(format!("{index:032x}").as_bytes());
    id
}
