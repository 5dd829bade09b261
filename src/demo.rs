//! The embedded demo: what `ringpost serve` without a file adds to the defaults.
//!
//! Owns: the demo's users and group, and the greeting that says what to connect to. Never: anything
//! in a gateway that was given a configuration file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use codec::{GroupId, GroupKey, UserId, UserKey};
use storage::admin::{AdminError, NewGroup, NewUser};
use storage::auth::hash_password;

use crate::config::Config;
use crate::config::keys::Transport;
use crate::exit::Failure;
use crate::stores;

/// Name, number, and phone number.
const USERS: [(&str, u32, &str); 3] =
    [("alice", 1001, "18500001001"), ("bob", 1002, "18500001002"), ("carol", 1003, "18500001003")];
/// The password of all of them.
pub(crate) const PASSWORD: &str = "ringpost";
/// Name and number; all users are in it.
pub(crate) const GROUP: (&str, u32) = ("demo", 1);

pub(crate) fn is_user(name: &str) -> bool {
    USERS.iter().any(|(user, ..)| *user == name)
}

/// The users by name, for the chat client.
pub(crate) fn users() -> BTreeMap<String, u32> {
    USERS.iter().map(|(name, id, _)| ((*name).to_owned(), *id)).collect()
}

/// Makes the users and the group where they are missing, in the tenant of `node.tenant`.
///
/// # Errors
/// The store cannot be opened or written, or somebody else has one of the names.
pub(crate) fn prepare(config: &Config) -> Result<(), Failure> {
    let mut store = stores::open_for_command(config)?;
    let tenant = stores::tenant_id(&mut *store, &config.tenants[0])?;
    let seeded = |error: AdminError| Failure::other("the demo's users", error);
    let password_hash = hash_password(PASSWORD.as_bytes());
    for (name, id, phone) in USERS {
        let known = store.user_by_name(tenant, name.as_bytes());
        if known.map_err(|error| Failure::other("the store", error.label()))?.is_none() {
            let key = UserKey { tenant, id: UserId(id) };
            let (name, password_hash) = (name.as_bytes().into(), password_hash.clone());
            let phone = Some(phone.to_owned());
            let user = NewUser { key, name, password_hash, phone };
            store.add_user(user).map_err(seeded)?;
        }
    }
    let members = USERS.map(|(_, id, _)| UserId(id));
    let group = NewGroup {
        key: GroupKey { tenant, id: GroupId(GROUP.1) },
        name: Some(GROUP.0.as_bytes().into()),
        title: Box::default(),
        owner: None,
        members: members.into(),
    };
    match store.create_group(&group) {
        Ok(()) | Err(AdminError::GroupTaken(_)) => Ok(()),
        Err(error) => Err(seeded(error)),
    }
}

/// What to connect to, with which credentials, and how to try it.
pub(crate) fn greeting(config: &Config) -> String {
    let mut out = String::from("Ringpost is running: the embedded demo, on this machine only.\n\n");
    for listener in &config.listeners {
        let note = match (listener.protocol.is_door(), listener.transport) {
            (true, _) => " (the back end's door)",
            (false, Transport::Tls | Transport::Wss) => " (self-signed certificate)",
            (false, Transport::Tcp | Transport::Ws) => "",
        };
        let _ = writeln!(out, "  {:<30} {}{note}", listener.url(), listener.protocol.name());
    }
    if let Some(address) = config.admin {
        let _ = writeln!(out, "  {:<30} metrics and health", format!("http://{address}/metrics"));
    }
    let users: Vec<_> = USERS.iter().map(|(name, id, _)| format!("{name} ({id})")).collect();
    let phones: Vec<_> = USERS.iter().map(|(_, _, phone)| *phone).collect();
    let _ = writeln!(out, "\n  users    {}, password {PASSWORD:?}", users.join(", "));
    let _ = writeln!(out, "  phones   {}", phones.join(", "));
    let _ = writeln!(out, "  group    {} ({}), all of them are in it", GROUP.0, GROUP.1);
    let _ = writeln!(out, "  data     {}", config.data_dir().display());
    out.push_str("\nTry it in two more terminals:\n\n");
    out.push_str("  ringpost chat alice          then type: bob hello\n");
    out.push_str("  ringpost chat bob            then type: @demo hello everybody\n\n");
    out.push_str("For real use: ringpost defaults > ringpost.toml; ringpost serve --config ");
    out.push_str("ringpost.toml\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_names_every_address_and_the_credentials() {
        let config = Config::load(None).expect("the defaults are right");
        let greeting = greeting(&config);
        for part in [
            "ws://127.0.0.1:9095/ws",
            "wss://127.0.0.1:8443/wss       binary (self-signed certificate)",
            "tcp://127.0.0.1:19095          binary-publish (the back end's door)",
            "tcp://127.0.0.1:5000           simple-text\n",
            "http://127.0.0.1:8080/metrics",
            "alice (1001), bob (1002), carol (1003), password \"ringpost\"",
            "ringpost chat alice",
        ] {
            assert!(greeting.contains(part), "{part} is not in\n{greeting}");
        }
    }
}
