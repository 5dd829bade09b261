//! Who is told of a change that was made here, while he is there: the other one, or the group, and
//! the other devices of who made it.
//!
//! Owns: these rules. Never: the form of what is told (the codec's), nor the way there (the
//! gateway's). Nobody waits for it, and nothing of it is kept: who was away asks for contacts and
//! groups when he comes.

use codec::{GroupId, News, Notice, UserId, UserKey};
use storage::StoreError;
use storage::accounts::{Accounts, GroupChange, TokenRecord};

use super::{Face, now_ms};

impl Face {
    /// Tells `to` and the other devices of who has made the change, by his token.
    pub(super) fn tell(&self, by: &TokenRecord, to: impl IntoIterator<Item = UserId>, news: News) {
        let mut to: Vec<UserId> = to.into_iter().chain([by.user]).collect();
        to.sort_unstable();
        to.dedup();
        let tenant = self.0.tenant;
        let to: Vec<UserKey> = to.into_iter().map(|id| UserKey { tenant, id }).collect();
        let name = by.name.clone();
        let notice = Notice {
            by: by.user,
            name: name.unwrap_or_else(|| by.user.to_string().into_bytes().into()),
            device: by.device.clone(),
            time_ms: now_ms(),
            news,
        };
        self.0.gateway.tell(&to, notice);
    }

    /// Changes a group, and tells its members: those who were there before and `member`, whom it
    /// is about. Of a very large group only he is told.
    pub(super) async fn change_group(
        &self,
        by: &TokenRecord,
        group: GroupId,
        member: Option<UserId>,
        news: News,
        change: impl FnOnce(&mut dyn Accounts) -> Result<GroupChange, StoreError> + Send + 'static,
    ) -> Result<GroupChange, StoreError> {
        let changed = self.call(move |accounts| {
            let members = accounts.group_members(group, MEMBERS_TOLD + 1)?;
            Ok((change(accounts)?, members))
        });
        let (change, mut members) = changed.await?;
        if change == GroupChange::Done {
            if members.len() > MEMBERS_TOLD as usize {
                members.clear();
            }
            self.tell(by, members.into_iter().chain(member), news);
        }
        Ok(change)
    }
}

/// Members of a group that are told of its changes: some milliseconds of a shard's time.
const MEMBERS_TOLD: u32 = 10_000;
