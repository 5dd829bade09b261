//! The body of a write transaction: every change of rows, bodies and dead letters goes through a
//! [`Batch`], so that counts, references and caps are right in one place.
//!
//! Owns: what each write means in SQL. Never: begin, commit or roll back; after an error, or
//! without [`Batch::finish`], the transaction must be rolled back and the usage forgotten.

use std::collections::HashMap;

use codec::{Message, Target, UserKey};
use rusqlite::{
    CachedStatement, Connection, Error, ErrorCode, OptionalExtension as _, Result, Row, params,
};

use super::record::encode_head;
use crate::request::{Append, DeadReason, StoreError};
use crate::store::{Caps, SEQ_MAX, Usage, Write};

/// What users hold, as far as it was asked for; never wrong, only incomplete.
pub(super) type Usages = HashMap<UserKey, Usage>;

/// The changes of one transaction, under way.
pub(crate) struct Batch<'c> {
    conn: &'c Connection,
    caps: &'c Caps,
    usages: &'c mut Usages,
    /// The time that new dead letters get.
    now_ms: u64,
    total: Usage,
    seq_max: u64,
    /// As read at the beginning.
    before: (Usage, u64),
    /// Group messages touched, all present, and what their `refs` change by.
    refs: HashMap<u128, i64>,
    /// See [`Self::note_change`].
    noted: bool,
    head: Vec<u8>,
    /// The two statements of nearly every write, kept at hand.
    insert: CachedStatement<'c>,
    delete: CachedStatement<'c>,
}

impl<'c> Batch<'c> {
    /// `conn` is in a transaction that may write.
    pub(super) fn new(
        conn: &'c Connection,
        caps: &'c Caps,
        usages: &'c mut Usages,
        now_ms: u64,
    ) -> Result<Self> {
        let mut totals = conn.prepare_cached("SELECT rows, bytes, seq_max FROM totals")?;
        let before = totals.query_row([], |row| {
            let total = Usage { rows: unsigned(row, 0)?, bytes: unsigned(row, 1)? };
            Ok((total, unsigned(row, 2)?))
        })?;
        if usages.len() > USERS_COUNTED_MAX {
            usages.clear();
        }
        Ok(Self {
            conn,
            caps,
            usages,
            now_ms,
            total: before.0,
            seq_max: before.1,
            before,
            refs: HashMap::new(),
            noted: false,
            head: Vec::new(),
            insert: conn.prepare_cached(INSERT)?,
            delete: conn.prepare_cached(DELETE)?,
        })
    }

    /// What this transaction changes may be cached by a running gateway, which shall hear of it.
    pub(crate) fn note_change(&mut self) {
        self.noted = true;
    }

    /// Writes back counts and references. Whether a change was noted.
    pub(super) fn finish(mut self) -> Result<bool> {
        for (stamp, change) in std::mem::take(&mut self.refs) {
            self.settle_body(stamp, change)?;
        }
        if self.noted {
            self.conn.prepare_cached("UPDATE changes SET count = count + 1")?.execute([])?;
        }
        if (self.total, self.seq_max) == self.before {
            return Ok(self.noted);
        }
        let sql = "UPDATE totals SET rows = ?1, bytes = ?2, seq_max = ?3";
        let totals = [self.total.rows, self.total.bytes, self.seq_max].map(u64::cast_signed);
        self.conn.prepare_cached(sql)?.execute(totals)?;
        Ok(self.noted)
    }

    /// The outer result ends the transaction, the inner one is the write's own.
    pub(super) fn apply(&mut self, write: &Write) -> Result<std::result::Result<(), StoreError>> {
        match write {
            Write::Append(append) => return self.append(append),
            Write::Delete { user, seq } => {
                self.delete(*user, *seq)?;
            }
            Write::FailedRound { user, seq, charge } => {
                let sql = "UPDATE delivery SET charges = min(charges + ?4, 255), suspect = 1
                           WHERE tenant = ?1 AND user = ?2 AND seq = ?3";
                let key = (user.tenant.0, user.id.0, signed(*seq), charge);
                self.conn.prepare_cached(sql)?.execute(key)?;
            }
            Write::DeadLetter { user, seq, reason } => {
                self.bury(*user, *seq, *reason)?;
            }
            Write::Bind { user, name } => self.bind(*user, name)?,
        }
        Ok(Ok(()))
    }

    fn append(&mut self, append: &Append) -> Result<std::result::Result<(), StoreError>> {
        let Append { user, seq, message, binding } = append;
        let group = match message.to {
            Target::User(_) => false,
            Target::Group(_) => true,
            Target::Room(_) => return Ok(Err(StoreError::Full)),
        };
        if *seq > SEQ_MAX {
            return Ok(Err(StoreError::Full));
        }
        let bytes = message.body.len() as u64;
        let new_body = group && !self.has_body(message.stamp)?;
        let new_bytes = if group && !new_body { 0 } else { bytes };
        let usage = self.usage(*user)?;
        if !self.caps.admit(usage, self.total, bytes, new_bytes) {
            // Refused, unless it is there already.
            let there = self.stamp_of(*user, *seq)? == Some(message.stamp);
            return Ok(if there { Ok(()) } else { Err(StoreError::Full) });
        }
        if !self.insert_row(*user, *seq, message, group)? {
            let there = self.stamp_of(*user, *seq)? == Some(message.stamp);
            return Ok(if there { Ok(()) } else { Err(StoreError::Full) });
        }
        if new_body {
            self.insert_body(message)?;
        }
        if group {
            *self.refs.entry(message.stamp).or_default() += 1;
        }
        self.total.add(1, new_bytes);
        self.usages.entry(*user).or_default().add(1, bytes);
        self.seq_max = self.seq_max.max(*seq);
        if let Some(name) = binding {
            self.bind(*user, name)?;
        }
        Ok(Ok(()))
    }

    /// `false`: the key is taken.
    fn insert_row(
        &mut self,
        user: UserKey,
        seq: u64,
        message: &Message,
        group: bool,
    ) -> Result<bool> {
        encode_head(message, &mut self.head);
        let (head, body) =
            if group { (None, None) } else { (Some(&*self.head), Some(&*message.body)) };
        let inserted = self.insert.execute(params![
            user.tenant.0,
            user.id.0,
            signed(seq),
            message.stamp.to_be_bytes(),
            message.time_ms.cast_signed(),
            message.body.len() as i64,
            head,
            body
        ]);
        match inserted {
            Ok(_) => Ok(true),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn stamp_of(&self, user: UserKey, seq: u64) -> Result<Option<u128>> {
        let sql = "SELECT stamp FROM delivery WHERE tenant = ?1 AND user = ?2 AND seq = ?3";
        let mut statement = self.conn.prepare_cached(sql)?;
        let key = (user.tenant.0, user.id.0, signed(seq));
        let stamp: Option<[u8; 16]> = statement.query_row(key, |row| row.get(0)).optional()?;
        Ok(stamp.map(u128::from_be_bytes))
    }

    fn bind(&self, user: UserKey, name: &[u8]) -> Result<()> {
        let sql = "INSERT INTO users (tenant, id, name, password_hash) VALUES (?1, ?2, ?3, '')
                   ON CONFLICT DO NOTHING";
        self.conn.prepare_cached(sql)?.execute((user.tenant.0, user.id.0, name))?;
        Ok(())
    }

    /// `false`: there is no such row.
    fn delete(&mut self, user: UserKey, seq: u64) -> Result<bool> {
        let key = (user.tenant.0, user.id.0, signed(seq));
        let row = self.delete.query_row(key, |row| {
            let stamp: [u8; 16] = row.get(0)?;
            Ok((u128::from_be_bytes(stamp), unsigned(row, 1)?, row.get::<_, bool>(2)?))
        });
        let Some((stamp, bytes, shared)) = row.optional()? else { return Ok(false) };
        self.uncount(user, bytes);
        self.release(stamp, bytes, shared);
        Ok(true)
    }

    /// Makes a dead letter of a row. `false`: there is no such row.
    pub(super) fn bury(&mut self, user: UserKey, seq: u64, reason: DeadReason) -> Result<bool> {
        let key = (user.tenant.0, user.id.0, signed(seq));
        let (tenant, id, seq) = key;
        let copied = self.conn.prepare_cached(BURY)?.execute(params![
            reason.label(),
            self.now_ms.cast_signed(),
            tenant,
            id,
            seq
        ])?;
        if copied == 0 {
            return Ok(false);
        }
        // The message only moved: the store's account and its references stay as they are.
        let bytes = self.delete.query_row(key, |row| unsigned(row, 1))?;
        self.uncount(user, bytes);
        Ok(true)
    }

    /// Puts a dead letter back in its old place, without charges, and notes its user for the
    /// gateway. `false`: there is none of that id.
    pub(crate) fn requeue(&mut self, id: i64) -> Result<bool> {
        let sql =
            "INSERT INTO delivery SELECT tenant, user, seq, 0, 0, stamp, time_ms, bytes, head,
                   body FROM dead_letters WHERE id = ?1";
        if self.conn.prepare_cached(sql)?.execute([id])? == 0 {
            return Ok(false);
        }
        let sql = "INSERT INTO requeued SELECT tenant, user FROM dead_letters WHERE id = ?1
                   ON CONFLICT DO NOTHING";
        self.conn.prepare_cached(sql)?.execute([id])?;
        self.conn.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?.execute([id])?;
        self.usages.clear();
        Ok(true)
    }

    /// Forgets a dead letter. `false`: there is none of that id.
    pub(crate) fn drop_dead(&mut self, id: i64) -> Result<bool> {
        let sql = "DELETE FROM dead_letters WHERE id = ?1 RETURNING stamp, bytes, head IS NULL";
        let row = self.conn.prepare_cached(sql)?.query_row([id], |row| {
            let stamp: [u8; 16] = row.get(0)?;
            Ok((u128::from_be_bytes(stamp), unsigned(row, 1)?, row.get::<_, bool>(2)?))
        });
        let Some((stamp, bytes, shared)) = row.optional()? else { return Ok(false) };
        self.release(stamp, bytes, shared);
        Ok(true)
    }

    /// Forgets all rows and dead letters of a user.
    pub(crate) fn clear_user(&mut self, user: UserKey) -> Result<()> {
        let sql = "SELECT seq FROM delivery WHERE tenant = ?1 AND user = ?2";
        for seq in self.keys(sql, user)? {
            self.delete(user, seq.cast_unsigned())?;
        }
        let sql = "SELECT id FROM dead_letters WHERE tenant = ?1 AND user = ?2";
        for id in self.keys(sql, user)? {
            self.drop_dead(id)?;
        }
        Ok(())
    }

    fn keys(&self, sql: &str, user: UserKey) -> Result<Vec<i64>> {
        let key = (user.tenant.0, user.id.0);
        self.conn.prepare_cached(sql)?.query_map(key, |row| row.get(0))?.collect()
    }

    pub(crate) fn conn(&self) -> &'c Connection {
        self.conn
    }

    fn usage(&mut self, user: UserKey) -> Result<Usage> {
        if let Some(usage) = self.usages.get(&user) {
            return Ok(*usage);
        }
        let sql = "SELECT count(*), coalesce(sum(bytes), 0) FROM delivery
                   WHERE tenant = ?1 AND user = ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        let usage = statement.query_row((user.tenant.0, user.id.0), |row| {
            Ok(Usage { rows: unsigned(row, 0)?, bytes: unsigned(row, 1)? })
        })?;
        self.usages.insert(user, usage);
        Ok(usage)
    }

    fn uncount(&mut self, user: UserKey, bytes: u64) {
        if let Some(usage) = self.usages.get_mut(&user) {
            usage.sub(1, bytes);
        }
    }

    /// A row or dead letter is gone for good.
    fn release(&mut self, stamp: u128, bytes: u64, shared: bool) {
        self.total.sub(1, if shared { 0 } else { bytes });
        if shared {
            *self.refs.entry(stamp).or_default() -= 1;
        }
    }

    fn has_body(&self, stamp: u128) -> Result<bool> {
        if self.refs.contains_key(&stamp) {
            return Ok(true);
        }
        let mut statement = self.conn.prepare_cached("SELECT 1 FROM bodies WHERE stamp = ?1")?;
        statement.exists([stamp.to_be_bytes()])
    }

    /// The head is the one of [`Self::insert_row`].
    fn insert_body(&self, message: &Message) -> Result<()> {
        let sql = "INSERT INTO bodies (stamp, refs, bytes, head, body) VALUES (?1, 0, ?2, ?3, ?4)";
        let bytes = message.body.len() as i64;
        let stamp = message.stamp.to_be_bytes();
        self.conn.prepare_cached(sql)?.execute(params![stamp, bytes, self.head, message.body])?;
        Ok(())
    }

    fn settle_body(&mut self, stamp: u128, change: i64) -> Result<()> {
        let stamp = stamp.to_be_bytes();
        let sql = "UPDATE bodies SET refs = refs + ?2 WHERE stamp = ?1 RETURNING refs, bytes";
        let mut statement = self.conn.prepare_cached(sql)?;
        let counts = statement.query_row((stamp, change), |row| {
            let refs: i64 = row.get(0)?;
            Ok((refs, unsigned(row, 1)?))
        });
        // Missing only in a file that somebody has edited by hand.
        let Some((refs, bytes)) = counts.optional()? else { return Ok(()) };
        if refs == 0 {
            self.conn.prepare_cached("DELETE FROM bodies WHERE stamp = ?1")?.execute([stamp])?;
            self.total.sub(0, bytes);
        }
        Ok(())
    }
}

/// Numbers that are never negative in a sound file.
pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| Error::IntegralValueOutOfRange(column, value))
}

/// A `seq` for SQL. Above [`SEQ_MAX`] there are no rows, nor at -1.
pub(super) fn signed(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(-1)
}

const INSERT: &str = "INSERT INTO delivery (tenant, user, seq, charges, suspect, stamp, time_ms,
    bytes, head, body) VALUES (?1, ?2, ?3, 0, 0, ?4, ?5, ?6, ?7, ?8)";
const DELETE: &str = "DELETE FROM delivery WHERE tenant = ?1 AND user = ?2 AND seq = ?3
    RETURNING stamp, bytes, head IS NULL";
const BURY: &str = "INSERT INTO dead_letters (reason, died_ms, tenant, user, seq, stamp, time_ms,
    bytes, head, body) SELECT ?1, ?2, tenant, user, seq, stamp, time_ms, bytes, head, body
    FROM delivery WHERE tenant = ?3 AND user = ?4 AND seq = ?5";

/// Users whose usage is remembered, some 50 B each; at the bound all are forgotten and asked for
/// again, which is one range of the table for each.
const USERS_COUNTED_MAX: usize = 1 << 18;
