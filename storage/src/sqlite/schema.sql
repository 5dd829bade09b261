-- Schema version 1. Stamps are 16 bytes, big-endian.

CREATE TABLE tenants (
    id      INTEGER PRIMARY KEY,
    org     TEXT NOT NULL,
    appkey  TEXT NOT NULL,
    UNIQUE (org, appkey)
) STRICT;
INSERT INTO tenants VALUES (0, 'default', 'default');

CREATE TABLE users (
    tenant         INTEGER NOT NULL,
    id             INTEGER NOT NULL,
    name           BLOB NOT NULL,
    password_hash  TEXT NOT NULL,
    phone          TEXT,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX users_name ON users (tenant, name);
CREATE UNIQUE INDEX users_phone ON users (tenant, phone) WHERE phone IS NOT NULL;

CREATE TABLE groups (
    tenant  INTEGER NOT NULL,
    id      INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE group_members (
    tenant    INTEGER NOT NULL,
    group_id  INTEGER NOT NULL,
    user      INTEGER NOT NULL,
    PRIMARY KEY (tenant, group_id, user),
    FOREIGN KEY (tenant, group_id) REFERENCES groups (tenant, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX group_members_user ON group_members (tenant, user);

-- One row per recipient, in the order in which it is read. head and body are NULL for a group's
-- message, which stands in bodies.
CREATE TABLE delivery (
    tenant   INTEGER NOT NULL,
    user     INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    charges  INTEGER NOT NULL,
    suspect  INTEGER NOT NULL,
    stamp    BLOB NOT NULL,
    time_ms  INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    head     BLOB,
    body     BLOB,
    PRIMARY KEY (tenant, user, seq)
) STRICT, WITHOUT ROWID;

-- A group's message, once. refs: its rows in delivery and dead_letters; it goes with the last.
CREATE TABLE bodies (
    stamp  BLOB PRIMARY KEY,
    refs   INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,
    head   BLOB NOT NULL,
    body   BLOB NOT NULL
) STRICT;

-- The row of delivery, and why and when it was given up. AUTOINCREMENT: an operator's id never
-- comes to mean another message.
CREATE TABLE dead_letters (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    reason   TEXT NOT NULL,
    died_ms  INTEGER NOT NULL,
    tenant   INTEGER NOT NULL,
    user     INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    stamp    BLOB NOT NULL,
    time_ms  INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    head     BLOB,
    body     BLOB
) STRICT;
CREATE INDEX dead_letters_user ON dead_letters (tenant, user);

-- Users whose dead letters were put back and whose gateway has not been told yet.
CREATE TABLE requeued (
    tenant  INTEGER NOT NULL,
    user    INTEGER NOT NULL,
    PRIMARY KEY (tenant, user)
) STRICT, WITHOUT ROWID;

-- What delivery, bodies and dead_letters hold, and the largest seq that ever was. One row, kept by
-- every transaction that changes them, so that no cap needs a scan.
CREATE TABLE totals (
    id       INTEGER PRIMARY KEY CHECK (id = 0),
    rows     INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    seq_max  INTEGER NOT NULL
) STRICT;
INSERT INTO totals VALUES (0, 0, 0, 0);
