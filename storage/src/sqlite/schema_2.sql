-- Schema version 2: names and owners of groups, contacts, and the accounts of simple_im.

ALTER TABLE users ADD COLUMN avatar TEXT NOT NULL DEFAULT '';
-- Raised by every contact that the user gets.
ALTER TABLE users ADD COLUMN contact_version INTEGER NOT NULL DEFAULT 0;

ALTER TABLE groups ADD COLUMN name BLOB;
ALTER TABLE groups ADD COLUMN title BLOB NOT NULL DEFAULT x'';
ALTER TABLE groups ADD COLUMN owner INTEGER;
-- Who knows it may join.
ALTER TABLE groups ADD COLUMN key TEXT;
-- Raised by every member that comes; the number he gets tells who is there the longest.
ALTER TABLE groups ADD COLUMN joins INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX groups_name ON groups (tenant, name) WHERE name IS NOT NULL;
CREATE INDEX groups_owner ON groups (tenant, owner) WHERE owner IS NOT NULL;

-- The number of joins up to his; 0: from before version 2. Equal for those who came at once.
ALTER TABLE group_members ADD COLUMN joined INTEGER NOT NULL DEFAULT 0;

-- Directed. version: the user's contact_version with which this one came.
CREATE TABLE contacts (
    tenant   INTEGER NOT NULL,
    user     INTEGER NOT NULL,
    contact  INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    PRIMARY KEY (tenant, user, contact)
) STRICT, WITHOUT ROWID;
CREATE INDEX contacts_contact ON contacts (tenant, contact);

-- asker wants to become a contact of asked.
CREATE TABLE pre_contacts (
    tenant   INTEGER NOT NULL,
    asked    INTEGER NOT NULL,
    asker    INTEGER NOT NULL,
    message  BLOB NOT NULL,
    time_s   INTEGER NOT NULL,
    PRIMARY KEY (tenant, asked, asker)
) STRICT, WITHOUT ROWID;
CREATE INDEX pre_contacts_asker ON pre_contacts (tenant, asker);

-- hash: SHA-256 of the token. expires_ms: NULL for a permanent one.
CREATE TABLE tokens (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant      INTEGER NOT NULL,
    hash        BLOB NOT NULL,
    user        INTEGER NOT NULL,
    name        BLOB,
    device      BLOB NOT NULL,
    ip          BLOB NOT NULL,
    port        INTEGER NOT NULL,
    expires_ms  INTEGER,
    UNIQUE (tenant, hash)
) STRICT;
CREATE INDEX tokens_user ON tokens (tenant, user);
CREATE INDEX tokens_expiry ON tokens (expires_ms) WHERE expires_ms IS NOT NULL;

-- The next ids to hand out, so that the id of something deleted is not used again at once.
CREATE TABLE next_ids (
    tenant  INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    next    INTEGER NOT NULL,
    PRIMARY KEY (tenant, kind)
) STRICT, WITHOUT ROWID;

-- How often something was changed that a running gateway may have cached: users, passwords,
-- groups. Beside it there are commits that nobody needs to hear of, like those of tokens.
CREATE TABLE changes (
    id     INTEGER PRIMARY KEY CHECK (id = 0),
    count  INTEGER NOT NULL
) STRICT;
INSERT INTO changes VALUES (0, 0);
