//! `ringpost deadletter`: messages that were given up and kept.
//!
//! Owns: its flags, and what it prints: never a message's body.

use clap::{Args, Subcommand};
use codec::TenantId;
use storage::Admin;
use storage::admin::{AdminError, DeadLetter, Tenant};

use crate::config::Config;
use crate::exit::Failure;
use crate::stores;

#[derive(Debug, Subcommand)]
pub(super) enum DeadLetterCommand {
    /// Print number, time, recipient, sender, size and reason of each
    List,
    /// Put them back where they were; a running gateway delivers them within seconds
    Requeue(Which),
    /// Forget them
    Drop(Which),
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// Their numbers, as listed
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<i64>,
    /// All there are
    #[arg(long)]
    all: bool,
}

/// `ringpost deadletter ...`
///
/// # Errors
/// Nothing was changed, and why.
pub(super) fn run(command: DeadLetterCommand, config: &Config) -> Result<(), Failure> {
    let mut store = stores::open_for_command(config)?;
    match command {
        DeadLetterCommand::List => list(&mut *store),
        DeadLetterCommand::Requeue(which) => {
            let count = each(which, &mut *store, |store, ids| store.requeue(ids))?;
            println!("{count} put back");
            Ok(())
        }
        DeadLetterCommand::Drop(which) => {
            let count = each(which, &mut *store, |store, ids| store.drop_dead_letters(ids))?;
            println!("{count} forgotten");
            Ok(())
        }
    }
}

/// The named ones in one transaction; all of them page by page. Returns how many.
fn each(
    which: Which,
    store: &mut dyn Admin,
    change: impl Fn(&mut dyn Admin, &[i64]) -> Result<(), AdminError>,
) -> Result<usize, Failure> {
    if !which.all {
        change(store, &which.ids).map_err(refused)?;
        return Ok(which.ids.len());
    }
    let (mut count, mut after) = (0, 0);
    loop {
        let letters = store.dead_letters(after, PAGE).map_err(refused)?;
        let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
        let Some(last) = ids.last() else { return Ok(count) };
        change(store, &ids).map_err(refused)?;
        (count, after) = (count + ids.len(), *last);
    }
}

fn list(store: &mut dyn Admin) -> Result<(), Failure> {
    let tenants = store.tenants().map_err(refused)?;
    let mut after = 0;
    loop {
        let letters = store.dead_letters(after, PAGE).map_err(refused)?;
        for letter in &letters {
            println!("{}", line(letter, &tenants));
        }
        match letters.last() {
            Some(last) => after = last.id,
            None => return Ok(()),
        }
    }
}

fn line(letter: &DeadLetter, tenants: &[Tenant]) -> String {
    let DeadLetter { id, user, reason, died_ms, message, .. } = letter;
    let tenant = tenant_name(user.tenant, tenants);
    let about = match message {
        None => "made by a newer version".to_owned(),
        Some(message) => {
            let from = match message.from {
                Some(from) => from.id.to_string(),
                None => "the back end".to_owned(),
            };
            let id = message.id.as_bytes().escape_ascii();
            format!("from {from}, {} bytes, id {id}", message.body.len())
        }
    };
    format!("{id}\t{}\t{tenant} user {}\t{reason}\t{about}", utc(*died_ms), user.id)
}

fn tenant_name(id: TenantId, tenants: &[Tenant]) -> String {
    let known = tenants.iter().find(|tenant| tenant.id == id);
    known.map_or_else(|| format!("tenant {}", id.0), |t| format!("{}/{}", t.org, t.appkey))
}

/// Milliseconds since 1970 as a date and time, to the second.
fn utc(ms: u64) -> String {
    let seconds = ms / 1000;
    let (mut day, of_day) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    // 400 years have 146,097 days; the loop below then sees at most 400 of them.
    let mut year = 1970 + 400 * (day / 146_097);
    day %= 146_097;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", day + 1)
}

fn refused(error: AdminError) -> Failure {
    Failure::new(error.to_string())
}

/// Read, and with --all changed, at once.
const PAGE: u32 = 1000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use codec::{Message, ProtocolId, Target, UserId, UserKey};

    use super::*;

    #[test]
    fn moments_are_dates() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_735_689_599_999), "2024-12-31T23:59:59Z");
        assert_eq!(utc(1_735_689_600_000), "2025-01-01T00:00:00Z");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01T00:00:00Z");
        assert_eq!(utc(13_574_649_600_000), "2400-03-01T00:00:00Z");
    }

    #[test]
    fn a_line_says_whose_and_why_but_not_what() {
        let user = UserKey { tenant: TenantId(0), id: UserId(1002) };
        let message = Message {
            stamp: 1,
            id: [b'a'; 32].into(),
            from: None,
            from_name: Arc::default(),
            to: Target::User(user),
            protocol: ProtocolId::ALL[0],
            time_ms: 0,
            body: Box::from(*b"secret"),
        };
        let letter = DeadLetter {
            id: 7,
            user,
            seq: 1,
            reason: "poison".to_owned(),
            died_ms: 0,
            message: Some(Arc::new(message)),
        };
        let tenants =
            [Tenant { id: TenantId(0), org: "acme".to_owned(), appkey: "chat".to_owned() }];
        let line = line(&letter, &tenants);
        let expected = "7\t1970-01-01T00:00:00Z\tacme/chat user 1002\tpoison\tfrom the back end, \
                        6 bytes, id aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        assert_eq!(line, expected);
    }
}
