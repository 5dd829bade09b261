//! The external store under the suite: a database and a Redis database of the test's own; the
//! operator's changes come through a second handle, as from another process.

use std::sync::Arc;

use codec::{GroupKey, Message, TenantId, UserId, UserKey};
use storage::Admin as _;
use storage::admin::{AdminError, DeadLetter, NewGroup, NewUser};
use storage::{Caps, ExternalConfig, ExternalStore, Store};

use crate::kit::Backend;
use crate::servers::Place;

pub(crate) struct External {
    pub(crate) place: Place,
    gateway: Option<ExternalStore>,
}

pub(crate) fn is_available() -> bool {
    Place::is_available()
}

impl External {
    pub(crate) fn with(change: impl FnOnce(&mut ExternalConfig)) -> Self {
        let mut place = Place::new().expect("asked before");
        change(&mut place.config);
        let gateway = Some(place.open());
        Self { place, gateway }
    }

    pub(crate) fn handle(&self) -> ExternalStore {
        self.place.open()
    }

    fn dead_id(&self, user: UserKey, seq: u64) -> Option<i64> {
        let letters = self.handle().dead_letters(0, u32::MAX).unwrap();
        letters.iter().find(|d| (d.user, d.seq) == (user, seq)).map(|d| d.id)
    }

    fn update(&self, sql: &str) -> bool {
        // As the command tells: "UPDATE 1".
        let counted = format!("WITH done AS ({sql} RETURNING 1) SELECT count(*) FROM done");
        let sql = self.place.sql();
        sql.try_run(&format!("BEGIN; {counted}; ROLLBACK")).is_ok() && sql.rows(&counted) == ["1"]
    }
}

impl Backend for External {
    fn open(caps: Caps, age_max_ms: Option<u64>) -> Self {
        Self::with(|config| {
            config.caps = caps;
            config.age_max_ms = age_max_ms;
        })
    }

    fn with_members_max(members_max: u32) -> Self {
        Self::with(|config| config.group_members_max = members_max)
    }

    fn store(&mut self) -> &mut dyn Store {
        self.gateway.as_mut().unwrap()
    }

    fn restart(mut self) -> Self {
        self.gateway = None;
        self.gateway = Some(self.handle());
        self
    }

    fn add_user(&mut self, key: UserKey, name: &[u8], password_hash: &str) -> bool {
        let password_hash = password_hash.to_owned();
        let user = NewUser { key, name: name.into(), password_hash, phone: None };
        match self.handle().add_user(user) {
            Ok(()) => true,
            Err(AdminError::IdTaken(_) | AdminError::NameTaken(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn set_phone(&mut self, user: UserKey, phone: &str) -> bool {
        let (tenant, id) = (user.tenant.0, user.id);
        self.update(&format!(
            "UPDATE ringpost_users SET phone = '{phone}' WHERE tenant = {tenant} AND id = {id}"
        ))
    }

    fn set_members(&mut self, group: GroupKey, members: &[UserId]) {
        let mut operator = self.handle();
        let _ = operator.delete_group(group);
        let members = members.to_vec();
        operator.create_group(&NewGroup { key: group, members, ..NewGroup::default() }).unwrap();
    }

    fn set_group_name(&mut self, key: GroupKey, name: &[u8]) -> bool {
        let mut operator = self.handle();
        let _ = operator.delete_group(key);
        let name = Some(name.into());
        match operator.create_group(&NewGroup { key, name, ..NewGroup::default() }) {
            Ok(()) => true,
            Err(AdminError::GroupNameTaken(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn add_tenant(&mut self, org: &str, appkey: &str) -> TenantId {
        self.handle().tenant_id(org, appkey).unwrap()
    }

    fn dead_letters(&mut self) -> Vec<(UserKey, u64, String, Arc<Message>)> {
        let letters = self.handle().dead_letters(0, u32::MAX).unwrap();
        let letter = |d: DeadLetter| (d.user, d.seq, d.reason, d.message.unwrap());
        let mut letters: Vec<_> = letters.into_iter().map(letter).collect();
        letters.sort_by_key(|(user, seq, ..)| (*user, *seq));
        letters
    }

    fn requeue(&mut self, user: UserKey, seq: u64) -> bool {
        self.dead_id(user, seq).is_some_and(|id| self.handle().requeue(&[id]).is_ok())
    }

    fn drop_dead(&mut self, user: UserKey, seq: u64) -> bool {
        self.dead_id(user, seq).is_some_and(|id| self.handle().drop_dead_letters(&[id]).is_ok())
    }
}
