//! Tokens of the HTTP login in Redis.
//!
//! Owns: their commands. Never: their keys and fields (`simple_im`), what they prove (`auth`).

use std::time::Duration;

use codec::{TenantId, UserKey};

use super::simple_im::{token_fields, token_key, token_record};
use super::{Redis, Script};
use crate::accounts::{TokenRecord, USER_TOKENS_MAX};
use crate::request::StoreError;

impl Redis {
    /// As [`crate::Accounts::put_token`].
    pub(crate) fn put_token(
        &mut self,
        tenant: TenantId,
        token: &[u8],
        record: &TokenRecord,
        ttl: Duration,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let index = index_key(UserKey { tenant, id: record.user });
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, TTL_MS_MAX);
        let mut cmd = self.script(Script::Token);
        cmd.arg(2).arg(token_key(tenant, token)).arg(index).arg("put").arg(now_ms);
        cmd.arg(ttl_ms).arg(USER_TOKENS_MAX);
        for (field, value) in token_fields(record) {
            cmd.arg(field).arg(value);
        }
        let _: u64 = self.commit(&cmd, true)?;
        Ok(())
    }

    /// As [`crate::Accounts::token`].
    pub(crate) fn token(
        &mut self,
        tenant: TenantId,
        token: &[u8],
        now_ms: u64,
    ) -> Result<Option<TokenRecord>, StoreError> {
        let mut cmd = self.script(Script::Token);
        cmd.arg(1).arg(token_key(tenant, token)).arg("get").arg(now_ms);
        let found: Option<(Fields, i64)> = self.ask(&cmd)?;
        Ok(found.and_then(|(fields, ttl)| token_record(fields, ttl < 0)))
    }

    /// As [`crate::Accounts::persist_token`].
    pub(crate) fn persist_token(
        &mut self,
        token: &[u8],
        user: UserKey,
        device: &[u8],
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let mut cmd = self.script(Script::Token);
        cmd.arg(2).arg(token_key(user.tenant, token)).arg(index_key(user));
        cmd.arg("persist").arg(now_ms).arg(device);
        Ok(self.commit::<u64>(&cmd, true)? > 0)
    }

    /// Forgets all tokens of a user, those before the index to them.
    pub(crate) fn delete_tokens(&mut self, user: UserKey) -> Result<(), StoreError> {
        let index = index_key(user);
        let mut keys: Vec<Vec<u8>> = self.ask(redis::cmd("ZRANGE").arg(&index).arg(0).arg(-1))?;
        keys.push(index.into_bytes());
        let _: u64 = self.commit(redis::cmd("DEL").arg(&keys), true)?;
        Ok(())
    }
}

/// The keys of a user's tokens.
fn index_key(user: UserKey) -> String {
    format!("ringpost_tokens_{}_{}", user.tenant.0, user.id)
}

/// Of a hash, with their values.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Redis adds it to its clock.
const TTL_MS_MAX: u64 = 1 << 52;
