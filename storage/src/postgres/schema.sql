-- Schema version 1. Ids are full u32, names opaque bytes.

CREATE TABLE ringpost_tenants (
    id      BIGINT PRIMARY KEY,
    org     TEXT NOT NULL,
    appkey  TEXT NOT NULL,
    UNIQUE (org, appkey)
);
INSERT INTO ringpost_tenants VALUES (0, 'default', 'default');

-- twin: came from a table where names are not unique, and somebody with a smaller id had the name.
-- He is found by his id and his phone number only.
CREATE TABLE ringpost_users (
    tenant           BIGINT NOT NULL,
    id               BIGINT NOT NULL,
    name             BYTEA NOT NULL,
    twin             BOOLEAN NOT NULL DEFAULT false,
    password_hash    TEXT NOT NULL DEFAULT '',
    phone            TEXT,
    avatar           TEXT NOT NULL DEFAULT '',
    contact_version  BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX ringpost_users_name ON ringpost_users (tenant, name) WHERE NOT twin;
CREATE UNIQUE INDEX ringpost_users_phone ON ringpost_users (tenant, phone)
    WHERE phone IS NOT NULL;

-- key: who knows it may join. joins: raised by every member that comes.
CREATE TABLE ringpost_groups (
    tenant  BIGINT NOT NULL,
    id      BIGINT NOT NULL,
    name    BYTEA,
    title   BYTEA NOT NULL DEFAULT '',
    owner   BIGINT,
    key     TEXT,
    joins   BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX ringpost_groups_name ON ringpost_groups (tenant, name)
    WHERE name IS NOT NULL;
CREATE INDEX ringpost_groups_owner ON ringpost_groups (tenant, owner) WHERE owner IS NOT NULL;

-- joined: who is there the longest has the smallest. Members need not be known as users.
CREATE TABLE ringpost_members (
    tenant    BIGINT NOT NULL,
    group_id  BIGINT NOT NULL,
    user_id   BIGINT NOT NULL,
    joined    BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, group_id, user_id),
    FOREIGN KEY (tenant, group_id) REFERENCES ringpost_groups (tenant, id) ON DELETE CASCADE
);
CREATE INDEX ringpost_members_user ON ringpost_members (tenant, user_id);

-- Directed. version: the user's contact_version with which this one came.
CREATE TABLE ringpost_contacts (
    tenant   BIGINT NOT NULL,
    user_id  BIGINT NOT NULL,
    contact  BIGINT NOT NULL,
    version  BIGINT NOT NULL,
    PRIMARY KEY (tenant, user_id, contact)
);
CREATE INDEX ringpost_contacts_contact ON ringpost_contacts (tenant, contact);

-- asker wants to become a contact of asked.
CREATE TABLE ringpost_pre_contacts (
    tenant   BIGINT NOT NULL,
    asked    BIGINT NOT NULL,
    asker    BIGINT NOT NULL,
    message  BYTEA NOT NULL,
    time_s   BIGINT NOT NULL,
    PRIMARY KEY (tenant, asked, asker)
);
CREATE INDEX ringpost_pre_contacts_asker ON ringpost_pre_contacts (tenant, asker);

-- The next ids to hand out, so that the id of something deleted is not used again at once.
CREATE TABLE ringpost_next_ids (
    tenant  BIGINT NOT NULL,
    kind    TEXT NOT NULL,
    next    BIGINT NOT NULL,
    PRIMARY KEY (tenant, kind)
);

-- What a gateway may have cached. It hears of its own changes, too. A new user is not cached.
CREATE FUNCTION ringpost_tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NOTIFY ringpost;
    RETURN NULL;
END $$;
CREATE TRIGGER ringpost_tell AFTER UPDATE OF name, password_hash, phone OR DELETE
    ON ringpost_users FOR EACH STATEMENT EXECUTE FUNCTION ringpost_tell();
CREATE TRIGGER ringpost_tell AFTER INSERT OR DELETE ON ringpost_groups
    FOR EACH STATEMENT EXECUTE FUNCTION ringpost_tell();
CREATE TRIGGER ringpost_tell AFTER INSERT OR UPDATE OR DELETE ON ringpost_members
    FOR EACH STATEMENT EXECUTE FUNCTION ringpost_tell();
