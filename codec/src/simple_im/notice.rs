//! Changes of contacts and groups, for clients of the later revisions.
//!
//! ```text
//!   n   from to ts id d ask t      t: add_contact (with ask), accept_contact, delete_contact
//!   gn  from g_id ts id d ... t    t: create_group (with g_key), delete_group,
//!                                  create_group_member, delete_group_member (with member_id)
//! ```
//!
//! Keys have no order; `t` is the last, so that a reader knows at once that it has all of it. The
//! client acknowledges as it does everything; nobody waits for that.
//!
//! Owns: these shapes, and who would not survive them. Never: who gets what, and when.

use super::Dialect;
use super::emit::Emitter;
use crate::ids::UserId;
use crate::notice::{News, Notice};

/// Appends the packet; nothing to clients of the revisions before these packets, which die of a
/// name they do not know, and nothing of news that has no name here.
pub(super) fn put(dialect: Dialect, notice: &Notice, out: &mut Vec<u8>) {
    if !dialect.is_flat() {
        return;
    }
    let seconds = notice.time_ms / 1000;
    let begin = |name: &'static str, key: &str, number: u32, out| {
        let mut packet = Emitter::new(name, dialect.is_double(), out);
        packet.number("from", notice.by.0.into()).number(key, number.into());
        packet.number("ts", seconds).text("id", format!("{name}_{seconds}").as_bytes());
        if !notice.device.is_empty() {
            packet.text("d", &notice.device);
        }
        packet
    };
    let contact = |to: UserId, out| begin("n", "to", to.0, out);
    match &notice.news {
        News::ContactAdded => {}
        News::ContactAsked { to, ask } => {
            contact(*to, out).text("ask", ask).text("t", b"add_contact");
        }
        News::ContactAccepted { to } => {
            contact(*to, out).text("t", b"accept_contact");
        }
        News::ContactDeleted { to } => {
            contact(*to, out).text("t", b"delete_contact");
        }
        News::GroupCreated { group, key } => {
            begin("gn", "g_id", group.0, out).text("g_key", key).text("t", b"create_group");
        }
        News::GroupDeleted { group } => {
            begin("gn", "g_id", group.0, out).text("t", b"delete_group");
        }
        News::MemberAdded { group, member } => {
            let mut packet = begin("gn", "g_id", group.0, out);
            packet.number("member_id", member.0.into()).text("t", b"create_group_member");
        }
        News::MemberRemoved { group, member } => {
            let mut packet = begin("gn", "g_id", group.0, out);
            packet.number("member_id", member.0.into()).text("t", b"delete_group_member");
        }
    }
}
