//! CONNECT, in every layout that clients in the field send.
//!
//! ```text
//!   01 | u16 u | username | u16 p | password                        Plain      (Android 2018-08)
//!   01 | u16 u | username | u16 p | password | u8 role              Role       (document, browser)
//!   01 | u16 u | username | u16 p | password | u8 role | u8 client  Terminal   (Android 2018-10)
//!   01 | u16 v | vhost    | u16 u | username | u16 p | password     Vhost      (Android 2018-07)
//! ```
//!
//! The bytes after the second string tell them apart. No client sends an empty password, so a
//! vhost packet leaves at least 3 bytes there, and the two bytes of `Terminal` read as a length
//! never fit.
//!
//! Owns: telling the layouts apart. Never: judging names, passwords or vhosts.

use super::ConnectLayout;
use crate::error::{Malformed, WireError};
use crate::packet::{Connect, Proof, Terminal};
use crate::reader::Reader;

/// The layout of a client's CONNECT, from which later choices follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Plain,
    Role,
    Terminal,
    Vhost,
}

/// Decodes what follows the command byte.
pub(super) fn decode<'a>(
    accepted: ConnectLayout,
    reader: &mut Reader<'a>,
) -> Result<(Connect<'a>, Layout), WireError> {
    let first = reader.string()?;
    let second = reader.string()?;
    let vhost_allowed = match accepted {
        ConnectLayout::Auto => true,
        ConnectLayout::Doc => false,
        ConnectLayout::Vhost => return with_vhost(first, second, reader),
    };
    let plain = connect(first, second);
    let mut tail = *reader;
    match *tail.rest() {
        [] => Ok((plain, Layout::Plain)),
        [role] => Ok((Connect { role: Some(decode_role(role)), ..plain }, Layout::Role)),
        [role, client @ 1..=CLIENT_MAX] => {
            let terminal = Terminal::Kind(client);
            let connect = Connect { role: Some(decode_role(role)), terminal, ..plain };
            Ok((connect, Layout::Terminal))
        }
        _ if vhost_allowed => with_vhost(first, second, reader),
        _ => Err(reader.error(Malformed::ConnectLayout)),
    }
}

/// A third string that ends exactly at the end makes the first one the vhost.
fn with_vhost<'a>(
    vhost: &'a [u8],
    name: &'a [u8],
    reader: &mut Reader<'a>,
) -> Result<(Connect<'a>, Layout), WireError> {
    let mismatch = reader.error(Malformed::ConnectLayout);
    let password = reader.string().map_err(|_| mismatch)?;
    reader.finish().map_err(|_| mismatch)?;
    Ok((Connect { vhost: Some(vhost), ..connect(name, password) }, Layout::Vhost))
}

fn connect<'a>(name: &'a [u8], password: &'a [u8]) -> Connect<'a> {
    let (proof, terminal) = (Proof::Password(password), Terminal::Kind(0));
    Connect { name, proof, role: None, terminal, vhost: None, tenant: None }
}

/// The browser client sends the role as an ASCII digit, all others as a number.
fn decode_role(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => byte,
    }
}

/// Client kinds are 1 (pc), 2 (app), 3 (mobile web) and so on up to this.
const CLIENT_MAX: u8 = 127;
