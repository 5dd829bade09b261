-- Schema version 2: the tables of the simple_im system (specs/simple-im.md section 7a), for the
-- default tenant. They are used if they are there, else made as that system makes them.
--
-- Rows stand in its tables and in ours, and triggers carry every change from the one to the other
-- within its transaction. (Its own tables cannot hold everything: an id is there once for all
-- tenants, names are short texts, a phone number is a must, members must be users.) What has no
-- place in its tables is only in ours: other tenants, users without a phone number or with an id or
-- number that does not fit, groups without an owner there, members and contacts who are no users
-- there. A name that does not fit is cut.
--
-- Passwords: MD5(password, salt) comes as `$simple-im-md5$<salt>$<hex>`. Other hashes cannot be
-- carried back: 32 asterisks stand for them, with which nobody passes there.

CREATE TABLE IF NOT EXISTS users (
    id          SERIAL PRIMARY KEY,
    name        VARCHAR(20) NOT NULL,
    phone       CHAR(11) NOT NULL,
    password    CHAR(32) NOT NULL,
    salt        CHAR(16) NOT NULL,
    updated_at  TIMESTAMP NOT NULL,
    created_at  TIMESTAMP NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS users_phone_index ON users (phone);
CREATE INDEX IF NOT EXISTS users_name_index ON users (name);

CREATE TABLE IF NOT EXISTS groups (
    id          SERIAL PRIMARY KEY,
    name        VARCHAR(20) NOT NULL,
    creater_id  INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    updated_at  TIMESTAMP NOT NULL,
    created_at  TIMESTAMP NOT NULL
);
CREATE INDEX IF NOT EXISTS groups_name_index ON groups (name);

CREATE TABLE IF NOT EXISTS group_members (
    group_id    INTEGER REFERENCES groups (id) ON DELETE CASCADE,
    user_id     INTEGER REFERENCES users (id) ON DELETE CASCADE,
    updated_at  TIMESTAMP NOT NULL,
    created_at  TIMESTAMP NOT NULL
);
CREATE INDEX IF NOT EXISTS group_members_group_id_index ON group_members (group_id);
CREATE INDEX IF NOT EXISTS group_members_user_id_index ON group_members (user_id);

CREATE TABLE IF NOT EXISTS user_relations (
    user_id         INTEGER REFERENCES users (id) ON DELETE CASCADE,
    friend_user_id  INTEGER REFERENCES users (id) ON DELETE CASCADE,
    updated_at      TIMESTAMP NOT NULL,
    created_at      TIMESTAMP NOT NULL
);
CREATE INDEX IF NOT EXISTS user_relations_user_id_index ON user_relations (user_id);
CREATE INDEX IF NOT EXISTS user_relations_friend_user_id_index
    ON user_relations (friend_user_id);

-- What is there already.
INSERT INTO ringpost_users (tenant, id, name, twin, password_hash, phone)
    SELECT 0, id, convert_to(name, 'UTF8'), row_number() OVER (PARTITION BY name ORDER BY id) > 1,
           '$simple-im-md5$' || rtrim(salt) || '$' || rtrim(password), rtrim(phone)
    FROM users;
INSERT INTO ringpost_groups (tenant, id, title, owner, joins)
    SELECT 0, g.id, convert_to(g.name, 'UTF8'), g.creater_id,
           (SELECT count(*) FROM group_members m WHERE m.group_id = g.id)
    FROM groups g;
INSERT INTO ringpost_members (tenant, group_id, user_id, joined)
    SELECT 0, group_id, user_id,
           row_number() OVER (PARTITION BY group_id ORDER BY min(created_at), user_id)
    FROM group_members WHERE group_id IS NOT NULL AND user_id IS NOT NULL
    GROUP BY group_id, user_id;
INSERT INTO ringpost_contacts (tenant, user_id, contact, version)
    SELECT 0, user_id, friend_user_id,
           row_number() OVER (PARTITION BY user_id ORDER BY min(created_at), friend_user_id)
    FROM user_relations WHERE user_id IS NOT NULL AND friend_user_id IS NOT NULL
    GROUP BY user_id, friend_user_id;
UPDATE ringpost_users u SET contact_version = c.version
    FROM (SELECT user_id, max(version) AS version FROM ringpost_contacts
          WHERE tenant = 0 GROUP BY user_id) c
    WHERE u.tenant = 0 AND u.id = c.user_id;

-- Whether a change is on its way from one side to the other, so that it does not come back.
CREATE FUNCTION ringpost_carried() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(current_setting('ringpost.carried', true), '') = 'yes'
$$;
CREATE FUNCTION ringpost_carry(on_its_way boolean) RETURNS void LANGUAGE sql AS $$
    SELECT set_config('ringpost.carried', CASE WHEN on_its_way THEN 'yes' ELSE 'no' END, true)
$$;

-- Bytes as text, as much of them as there can be.
CREATE FUNCTION ringpost_text(bytes bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN convert_from(bytes, 'UTF8');
EXCEPTION WHEN OTHERS THEN
    RETURN encode(bytes, 'escape');
END $$;

-- From its tables into ours.

CREATE FUNCTION ringpost_from_users() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF ringpost_carried() THEN RETURN NULL; END IF;
    PERFORM ringpost_carry(true);
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND NEW.id <> OLD.id) THEN
        DELETE FROM ringpost_contacts WHERE tenant = 0 AND (user_id = OLD.id OR contact = OLD.id);
        DELETE FROM ringpost_pre_contacts WHERE tenant = 0 AND (asked = OLD.id OR asker = OLD.id);
        DELETE FROM ringpost_members WHERE tenant = 0 AND user_id = OLD.id;
        -- As its own foreign key does.
        DELETE FROM ringpost_groups WHERE tenant = 0 AND owner = OLD.id;
        DELETE FROM ringpost_users WHERE tenant = 0 AND id = OLD.id;
    END IF;
    IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.id <> OLD.id) THEN
        INSERT INTO ringpost_users (tenant, id, name, twin, password_hash, phone)
            VALUES (0, NEW.id, convert_to(NEW.name, 'UTF8'),
                EXISTS (SELECT 1 FROM ringpost_users
                        WHERE tenant = 0 AND name = convert_to(NEW.name, 'UTF8') AND NOT twin),
                '$simple-im-md5$' || rtrim(NEW.salt) || '$' || rtrim(NEW.password),
                rtrim(NEW.phone));
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE ringpost_users u SET
            name = CASE WHEN NEW.name = OLD.name THEN u.name
                        ELSE convert_to(NEW.name, 'UTF8') END,
            twin = CASE WHEN NEW.name = OLD.name THEN u.twin
                        ELSE EXISTS (SELECT 1 FROM ringpost_users o WHERE o.tenant = 0
                            AND o.name = convert_to(NEW.name, 'UTF8') AND NOT o.twin
                            AND o.id <> NEW.id) END,
            phone = rtrim(NEW.phone),
            password_hash = CASE
                WHEN NEW.password = OLD.password AND NEW.salt = OLD.salt THEN u.password_hash
                ELSE '$simple-im-md5$' || rtrim(NEW.salt) || '$' || rtrim(NEW.password) END
            WHERE tenant = 0 AND id = NEW.id;
    END IF;
    PERFORM ringpost_carry(false);
    RETURN NULL;
END $$;
CREATE TRIGGER ringpost_carry AFTER INSERT OR UPDATE OR DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION ringpost_from_users();

CREATE FUNCTION ringpost_from_groups() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF ringpost_carried() THEN RETURN NULL; END IF;
    PERFORM ringpost_carry(true);
    IF TG_OP = 'DELETE' THEN
        DELETE FROM ringpost_groups WHERE tenant = 0 AND id = OLD.id;
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO ringpost_groups (tenant, id, title, owner)
            VALUES (0, NEW.id, convert_to(NEW.name, 'UTF8'), NEW.creater_id);
    ELSE
        UPDATE ringpost_groups g SET owner = NEW.creater_id,
            title = CASE WHEN NEW.name = OLD.name THEN g.title
                         ELSE convert_to(NEW.name, 'UTF8') END
            WHERE tenant = 0 AND id = NEW.id;
    END IF;
    PERFORM ringpost_carry(false);
    RETURN NULL;
END $$;
CREATE TRIGGER ringpost_carry AFTER INSERT OR UPDATE OR DELETE ON groups
    FOR EACH ROW EXECUTE FUNCTION ringpost_from_groups();

CREATE FUNCTION ringpost_from_members() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    joined_as bigint;
BEGIN
    IF ringpost_carried() THEN RETURN NULL; END IF;
    PERFORM ringpost_carry(true);
    IF TG_OP <> 'INSERT' THEN
        -- He may be there twice.
        DELETE FROM ringpost_members WHERE tenant = 0 AND group_id = OLD.group_id
            AND user_id = OLD.user_id AND NOT EXISTS (SELECT 1 FROM group_members m
                WHERE m.group_id = OLD.group_id AND m.user_id = OLD.user_id);
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.group_id IS NOT NULL AND NEW.user_id IS NOT NULL THEN
        UPDATE ringpost_groups SET joins = joins + 1 WHERE tenant = 0 AND id = NEW.group_id
            RETURNING joins INTO joined_as;
        INSERT INTO ringpost_members VALUES (0, NEW.group_id, NEW.user_id, coalesce(joined_as, 0))
            ON CONFLICT DO NOTHING;
    END IF;
    PERFORM ringpost_carry(false);
    RETURN NULL;
END $$;
CREATE TRIGGER ringpost_carry AFTER INSERT OR UPDATE OR DELETE ON group_members
    FOR EACH ROW EXECUTE FUNCTION ringpost_from_members();

CREATE FUNCTION ringpost_from_relations() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    came_as bigint;
BEGIN
    IF ringpost_carried() THEN RETURN NULL; END IF;
    PERFORM ringpost_carry(true);
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM ringpost_contacts WHERE tenant = 0 AND user_id = OLD.user_id
            AND contact = OLD.friend_user_id AND NOT EXISTS (SELECT 1 FROM user_relations r
                WHERE r.user_id = OLD.user_id AND r.friend_user_id = OLD.friend_user_id);
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.user_id IS NOT NULL AND NEW.friend_user_id IS NOT NULL THEN
        UPDATE ringpost_users SET contact_version = contact_version + 1
            WHERE tenant = 0 AND id = NEW.user_id RETURNING contact_version INTO came_as;
        INSERT INTO ringpost_contacts
            VALUES (0, NEW.user_id, NEW.friend_user_id, coalesce(came_as, 0))
            ON CONFLICT DO NOTHING;
    END IF;
    PERFORM ringpost_carry(false);
    RETURN NULL;
END $$;
CREATE TRIGGER ringpost_carry AFTER INSERT OR UPDATE OR DELETE ON user_relations
    FOR EACH ROW EXECUTE FUNCTION ringpost_from_relations();

-- From our tables into its.

CREATE FUNCTION ringpost_to_users() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    foreign_hash CONSTANT text := split_part(NEW.password_hash, '$', 4);
    is_foreign CONSTANT boolean := NEW.password_hash LIKE '$simple-im-md5$%'
        AND length(foreign_hash) = 32 AND length(split_part(NEW.password_hash, '$', 3)) <= 16;
BEGIN
    IF ringpost_carried() OR length(NEW.phone) > 11 OR NEW.id NOT BETWEEN 1 AND 2147483647 THEN
        RETURN NULL;
    END IF;
    PERFORM ringpost_carry(true);
    INSERT INTO users (id, name, phone, password, salt, updated_at, created_at)
        VALUES (NEW.id, left(ringpost_text(NEW.name), 20), NEW.phone,
            CASE WHEN is_foreign THEN foreign_hash ELSE repeat('*', 32) END,
            CASE WHEN is_foreign THEN split_part(NEW.password_hash, '$', 3) ELSE '' END,
            localtimestamp, localtimestamp)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, phone = excluded.phone,
            password = excluded.password, salt = excluded.salt, updated_at = localtimestamp;
    -- Its next user shall not ask for the same id. (Larger ids were not handed out in turn.)
    PERFORM setval(s.ids, NEW.id)
        FROM (SELECT pg_get_serial_sequence('users', 'id')::regclass AS ids) s
        WHERE NEW.id < 1000000000 AND NEW.id > coalesce(pg_sequence_last_value(s.ids), 0);
    PERFORM ringpost_carry(false);
    RETURN NULL;
END $$;
CREATE TRIGGER ringpost_carry AFTER INSERT OR UPDATE OF name, phone, password_hash
    ON ringpost_users FOR EACH ROW WHEN (NEW.tenant = 0 AND NEW.phone IS NOT NULL)
    EXECUTE FUNCTION ringpost_to_users();

CREATE FUNCTION ringpost_to_groups() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF ringpost_carried() OR NEW.id NOT BETWEEN 1 AND 2147483647
        OR NOT EXISTS (SELECT 1 FROM users WHERE id = NEW.owner) THEN
        RETURN NULL;
    END IF;
    PERFORM ringpost_carry(true);
    INSERT INTO groups (id, name, creater_id, updated_at, created_at)
        VALUES (NEW.id, left(ringpost_text(CASE WHEN NEW.title = '' THEN coalesce(NEW.name, '')
                ELSE NEW.title END), 20), NEW.owner, localtimestamp, localtimestamp)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, creater_id = excluded.creater_id,
            updated_at = localtimestamp;
    PERFORM ringpost_carry(false);
    RETURN NULL;
END $$;
CREATE TRIGGER ringpost_carry AFTER INSERT OR UPDATE OF name, title, owner
    ON ringpost_groups FOR EACH ROW WHEN (NEW.tenant = 0 AND NEW.owner IS NOT NULL)
    EXECUTE FUNCTION ringpost_to_groups();

CREATE FUNCTION ringpost_to_members() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF ringpost_carried() OR NOT EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id)
        OR NOT EXISTS (SELECT 1 FROM groups WHERE id = NEW.group_id) THEN
        RETURN NULL;
    END IF;
    PERFORM ringpost_carry(true);
    INSERT INTO group_members VALUES (NEW.group_id, NEW.user_id, localtimestamp, localtimestamp);
    PERFORM ringpost_carry(false);
    RETURN NULL;
END $$;
CREATE TRIGGER ringpost_carry AFTER INSERT ON ringpost_members
    FOR EACH ROW WHEN (NEW.tenant = 0) EXECUTE FUNCTION ringpost_to_members();

CREATE FUNCTION ringpost_to_relations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF ringpost_carried() OR NOT EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id)
        OR NOT EXISTS (SELECT 1 FROM users WHERE id = NEW.contact) THEN
        RETURN NULL;
    END IF;
    PERFORM ringpost_carry(true);
    INSERT INTO user_relations VALUES (NEW.user_id, NEW.contact, localtimestamp, localtimestamp);
    PERFORM ringpost_carry(false);
    RETURN NULL;
END $$;
CREATE TRIGGER ringpost_carry AFTER INSERT ON ringpost_contacts
    FOR EACH ROW WHEN (NEW.tenant = 0) EXECUTE FUNCTION ringpost_to_relations();

-- What is gone here is gone there.
CREATE FUNCTION ringpost_to_nothing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF ringpost_carried() THEN RETURN NULL; END IF;
    PERFORM ringpost_carry(true);
    CASE TG_TABLE_NAME
        WHEN 'ringpost_users' THEN DELETE FROM users WHERE id = OLD.id;
        WHEN 'ringpost_groups' THEN DELETE FROM groups WHERE id = OLD.id;
        WHEN 'ringpost_members' THEN
            DELETE FROM group_members WHERE group_id = OLD.group_id AND user_id = OLD.user_id;
        WHEN 'ringpost_contacts' THEN
            DELETE FROM user_relations WHERE user_id = OLD.user_id AND friend_user_id = OLD.contact;
    END CASE;
    PERFORM ringpost_carry(false);
    RETURN NULL;
END $$;
CREATE TRIGGER ringpost_carry_off AFTER DELETE ON ringpost_users
    FOR EACH ROW WHEN (OLD.tenant = 0) EXECUTE FUNCTION ringpost_to_nothing();
CREATE TRIGGER ringpost_carry_off AFTER DELETE ON ringpost_groups
    FOR EACH ROW WHEN (OLD.tenant = 0) EXECUTE FUNCTION ringpost_to_nothing();
CREATE TRIGGER ringpost_carry_off AFTER DELETE ON ringpost_members
    FOR EACH ROW WHEN (OLD.tenant = 0) EXECUTE FUNCTION ringpost_to_nothing();
CREATE TRIGGER ringpost_carry_off AFTER DELETE ON ringpost_contacts
    FOR EACH ROW WHEN (OLD.tenant = 0) EXECUTE FUNCTION ringpost_to_nothing();
