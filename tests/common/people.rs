//! A person: a client of any protocol, behind the few words that all of them have.

use std::time::Duration;

use codec::binary::client::Tail;
use codec::im_demo::client::ServerPacket;
use codec::im_demo::types::{ChatType, MessageAck};
use codec::simple_im::client::To as ImTo;
use codec::{GroupId, MessageId, PublishKind, UserId};
use prost::Message as _;

use super::client::{Client, Seen, Want};
use super::demo::{DemoClient, DemoPush, DemoSeen};
use super::gateway::{Gateway, PASSWORD};
use super::text::{TextClient, TextSeen};
use super::toml::{ImClient, ImSeen};
use super::{PATIENCE, SILENCE, id};

/// A protocol that people speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Binary,
    SimpleText,
    SimpleIm,
    ImDemo,
}

impl Language {
    pub(crate) const ALL: [Self; 4] =
        [Self::Binary, Self::SimpleText, Self::SimpleIm, Self::ImDemo];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::SimpleText => "simple-text",
            Self::SimpleIm => "simple-im",
            Self::ImDemo => "im-demo",
        }
    }

    /// Every ordered pair.
    pub(crate) fn pairs() -> impl Iterator<Item = (Self, Self)> {
        Self::ALL.into_iter().flat_map(|from| Self::ALL.map(|to| (from, to)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    User(u32),
    Group(u32),
}

/// A message, as its receiver's protocol can tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) text: String,
    /// The sender, by name or by number.
    pub(crate) from: Option<String>,
    pub(crate) group: Option<String>,
    /// It says that it waited in the store.
    pub(crate) stored: bool,
    /// The protocol's word for it.
    pub(crate) form: &'static str,
    receipt: Receipt,
}

/// What an acknowledgement has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Receipt {
    Id(PublishKind, MessageId),
    Text(String),
    /// The receiver's kernel has acknowledged the bytes.
    Tcp,
}

/// A message that was sent: what its acknowledgement must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    kind: PublishKind,
    id: String,
}

/// What a person saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Heard(Heard),
    /// The protocol's word for it, and the id it is about.
    Acked(&'static str, String),
    /// Nobody expects this.
    Other(String),
}

pub(crate) struct Person {
    pub(crate) language: Language,
    pub(crate) user: u32,
    client: AnyClient,
    /// Messages sent so far.
    said: u32,
}

enum AnyClient {
    Binary(Client),
    Text(TextClient),
    Im(ImClient),
    Demo(DemoClient),
}

impl Person {
    /// User `u<user>`, logged in.
    #[track_caller]
    pub(crate) fn login(gateway: &Gateway, language: Language, user: u32) -> Self {
        Self::join(gateway, language, user, 0, "any token")
    }

    /// Terminal `terminal` of the user; at most two that differ. `token`: what simple-im logs in
    /// with.
    #[track_caller]
    pub(crate) fn join(
        gateway: &Gateway,
        language: Language,
        user: u32,
        terminal: u8,
        token: &str,
    ) -> Self {
        let name = format!("u{user}");
        let client = match language {
            Language::Binary => {
                let mut client = gateway.dial();
                client.login(&name, PASSWORD, Tail::Terminal { role: 2, client: 2 + terminal });
                AnyClient::Binary(client)
            }
            Language::SimpleText => AnyClient::Text(TextClient::logged_in(gateway, &name)),
            Language::SimpleIm => {
                let device = if terminal == 0 { "android" } else { "ipad" };
                let mut client = ImClient::dial(gateway, user, device);
                client.login(token);
                AnyClient::Im(client)
            }
            Language::ImDemo => {
                let mut client = DemoClient::dial(gateway);
                let mut connect = DemoClient::connect(&name);
                connect.device = format!("d{terminal}");
                client.login(connect);
                AnyClient::Demo(client)
            }
        };
        Self { language, user, client, said: 0 }
    }

    /// What receivers see of the sender if they see his name. In open mode a simple-im user never
    /// said what he is called.
    pub(crate) fn name(&self) -> String {
        match self.language {
            Language::SimpleIm => self.user.to_string(),
            _ => format!("u{}", self.user),
        }
    }

    /// A message to a group also comes to its sender; the others' rules have no echo.
    pub(crate) fn hears_his_own(&self) -> bool {
        self.language == Language::SimpleIm
    }

    /// Sends a text. Whoever is away finds it later.
    #[track_caller]
    pub(crate) fn say(&mut self, to: To, text: &str) -> Said {
        self.said += 1;
        let number = self.said;
        let kind = match to {
            To::User(_) => PublishKind::User,
            To::Group(_) => PublishKind::Group,
        };
        let id = match &mut self.client {
            AnyClient::Binary(client) => {
                let to = match to {
                    To::User(user) => Want::User(user),
                    To::Group(group) => Want::Group(group),
                };
                client.publish(to, id(number), text);
                text_of(&id(number))
            }
            AnyClient::Text(client) => {
                let to = match to {
                    To::User(user) => format!("u{user}"),
                    To::Group(group) => format!("#{group}"),
                };
                client.say(Some(&to), text);
                String::new()
            }
            AnyClient::Im(client) => {
                let to = match to {
                    To::User(user) => ImTo::User(UserId(user)),
                    To::Group(group) => ImTo::Group(GroupId(group)),
                };
                // The original clients say everything under one id.
                client.say("a_02", to, text);
                "a_02".to_owned()
            }
            AnyClient::Demo(client) => {
                let id = format!("m{number}");
                let (chat, to) = match to {
                    To::User(user) => (ChatType::Single, format!("u{user}")),
                    To::Group(group) => (ChatType::Group, group.to_string()),
                };
                client.send((chat, &to), &id, text, Some(true));
                id
            }
        };
        Said { kind, id }
    }

    /// Expects his protocol's acknowledgement as the next thing, and gives its name; where it has
    /// none, that nothing has come so far.
    #[track_caller]
    pub(crate) fn expect_ack(&mut self, said: &Said) -> &'static str {
        let word = match (self.language, said.kind) {
            (Language::Binary, PublishKind::User) => "PUB_ACK",
            (Language::Binary, _) => "GROUP_PUB_ACK",
            (Language::SimpleIm, _) => "[a]",
            (Language::ImDemo, _) => "Response 0, MessageAck",
            (Language::SimpleText, _) => {
                assert_eq!(self.see(Duration::from_millis(1)), None);
                return "none; no failure";
            }
        };
        assert_eq!(self.next(), Event::Acked(word, said.id.clone()));
        word
    }

    /// Expects this text as the next thing.
    #[track_caller]
    pub(crate) fn hear(&mut self, text: &str) -> Heard {
        match self.next() {
            Event::Heard(heard) => {
                assert_eq!(heard.text, text, "{heard:?} at a {} client", self.language.name());
                heard
            }
            other => panic!("{other:?} at a {} client instead of {text:?}", self.language.name()),
        }
    }

    /// Acknowledges in his protocol's way.
    #[track_caller]
    pub(crate) fn confirm(&mut self, heard: &Heard) {
        match (&mut self.client, &heard.receipt) {
            (AnyClient::Binary(client), Receipt::Id(kind, id)) => client.ack(*kind, *id),
            (AnyClient::Im(client), Receipt::Id(_, id)) => client.ack(id),
            (AnyClient::Demo(client), Receipt::Text(id)) => client.ack(id),
            (AnyClient::Text(_), Receipt::Tcp) => {}
            (_, receipt) => panic!("{receipt:?} is of another protocol"),
        }
    }

    /// Expects this text and acknowledges it.
    #[track_caller]
    pub(crate) fn take(&mut self, text: &str) -> Heard {
        let heard = self.hear(text);
        self.confirm(&heard);
        heard
    }

    #[track_caller]
    fn next(&mut self) -> Event {
        let language = self.language.name();
        self.see(PATIENCE).unwrap_or_else(|| panic!("nothing came at a {language} client"))
    }

    /// The next thing within `patience`; `None`: nothing came.
    pub(crate) fn see(&mut self, patience: Duration) -> Option<Event> {
        Some(match &mut self.client {
            AnyClient::Binary(client) => of_binary(client.see(patience)?),
            AnyClient::Text(client) => of_text(client.see(patience)?),
            AnyClient::Im(client) => of_im(client.see(patience)?),
            AnyClient::Demo(client) => of_demo(client.see(patience)?),
        })
    }
}

/// One word to each receiver, and nothing is under way for him after it: until the store has said
/// after a login that it holds nothing, messages go through it.
#[track_caller]
pub(crate) fn greet(senders: &mut [Person], receivers: &mut [Person]) {
    for (sender, receiver) in senders.iter_mut().zip(receivers) {
        let said = sender.say(To::User(receiver.user), "good morning");
        receiver.take("good morning");
        sender.expect_ack(&said);
    }
}

/// Nothing comes for anybody, for [`SILENCE`] in all.
#[track_caller]
pub(crate) fn expect_silence<'a>(people: impl IntoIterator<Item = &'a mut Person>) {
    let mut patience = SILENCE;
    for person in people {
        let language = person.language.name();
        assert_eq!(person.see(patience), None, "at a {language} client");
        patience = Duration::from_millis(1);
    }
}

fn of_binary(seen: Seen) -> Event {
    let heard = |group: Option<u32>, kind, form, id, body: Vec<u8>| {
        Event::Heard(Heard {
            text: String::from_utf8(body).expect("a text"),
            from: None,
            group: group.map(|group| group.to_string()),
            stored: false,
            form,
            receipt: Receipt::Id(kind, id),
        })
    };
    match seen {
        Seen::Push { id, body } => heard(None, PublishKind::User, "PUBLISH", id, body),
        Seen::GroupPush { group, id, body } => {
            heard(Some(group), PublishKind::Group, "GROUP_PUBLISH", id, body)
        }
        Seen::Ack(PublishKind::User, id) => Event::Acked("PUB_ACK", text_of(&id)),
        Seen::Ack(_, id) => Event::Acked("GROUP_PUB_ACK", text_of(&id)),
        other => Event::Other(format!("{other:?}")),
    }
}

fn of_text(seen: TextSeen) -> Event {
    match seen {
        TextSeen::Message { user, text, private, group } => Event::Heard(Heard {
            text,
            from: Some(user),
            group,
            stored: false,
            form: if private { "private" } else { "public" },
            receipt: Receipt::Tcp,
        }),
        other => Event::Other(format!("{other:?}")),
    }
}

fn of_im(seen: ImSeen) -> Event {
    match seen {
        ImSeen::Push(push) => {
            let (form, group) = match push.to {
                ImTo::User(_) => ("m", None),
                ImTo::Group(group) => ("gm", Some(group.to_string())),
            };
            assert!(push.time_s > 1_700_000_000, "{push:?} has no time");
            Event::Heard(Heard {
                text: push.text,
                from: push.from.map(|user| user.to_string()),
                group,
                stored: false,
                form,
                receipt: Receipt::Id(PublishKind::User, push.id),
            })
        }
        ImSeen::Ack(id) => Event::Acked("[a]", id),
        other => Event::Other(format!("{other:?}")),
    }
}

fn of_demo(seen: DemoSeen) -> Event {
    match seen {
        DemoSeen::Packet(ServerPacket::Push { id, message, stored }) => {
            let push = DemoPush::of(&id, &message, stored);
            Event::Heard(Heard {
                text: push.text,
                from: Some(push.from).filter(|from| !from.is_empty()),
                group: push.group.then_some(push.to),
                stored,
                form: if push.group { "CHAT_GROUP" } else { "CHAT_SINGLE" },
                receipt: Receipt::Text(id),
            })
        }
        DemoSeen::Packet(ServerPacket::Response(response)) if response.code == 0 => {
            match MessageAck::decode(&*response.payload) {
                Ok(ack) if !ack.id.is_empty() => {
                    Event::Acked("Response 0, MessageAck", response.id)
                }
                _ => Event::Other(format!("{response:?}")),
            }
        }
        other => Event::Other(format!("{other:?}")),
    }
}

fn text_of(id: &MessageId) -> String {
    String::from_utf8(id.as_bytes().to_vec()).expect("a test's id is text")
}
