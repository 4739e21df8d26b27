-- Who may what (access/). Every process keeps all of it in memory and asks each second whether the version moved.

-- One row: how often anything of this has changed. Moves in the transaction of the change, under the row's lock, so that
-- versions become visible in their order, and `changed > n` misses nothing.
CREATE TABLE access_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO access_version (version) VALUES (1);

-- A trigger, so that whoever changes a row, by hand too, need not know of the version.
CREATE FUNCTION logfeed_access_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE access_version SET version = version + 1 RETURNING version INTO NEW.changed;
    RETURN NEW;
END
$$;

-- Grants are texts: permission:service, permission:prefix* or permission:* (access/grants.py).
CREATE TABLE api_keys (
    prefix text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
    grants text[] NOT NULL,
    networks text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    changed bigint NOT NULL DEFAULT 0
);
COMMENT ON COLUMN api_keys.secret_sha256 IS 'of the whole key; its secret has 256 random bits, so nothing slower is needed';
COMMENT ON COLUMN api_keys.networks IS 'CIDR; where requests may come from, empty: anywhere';
CREATE INDEX api_keys_changed ON api_keys (changed);
CREATE TRIGGER api_keys_changed BEFORE INSERT OR UPDATE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION logfeed_access_changed();

CREATE TABLE users (
    user_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    password_hash text NOT NULL,
    grants text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at timestamptz,
    changed bigint NOT NULL DEFAULT 0
);
COMMENT ON COLUMN users.password_hash IS 'argon2id, in the PHC string format';
CREATE INDEX users_changed ON users (changed);
CREATE TRIGGER users_changed BEFORE INSERT OR UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION logfeed_access_changed();

-- A login and all refresh tokens that came of it: only the newest is good, an older one ends the session.
CREATE TABLE sessions (
    session_id text COLLATE "C" PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users,
    refresh_sha256 bytea NOT NULL CHECK (octet_length(refresh_sha256) = 32),
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    refreshed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    ended_why text CHECK (ended_why IN ('logout', 'reuse', 'password', 'disabled')),
    changed bigint NOT NULL DEFAULT 0
);
CREATE INDEX sessions_changed ON sessions (changed) WHERE ended_at IS NOT NULL;
CREATE INDEX sessions_user ON sessions (user_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_expires ON sessions (expires_at);
CREATE TRIGGER sessions_ended BEFORE UPDATE OF ended_at ON sessions
    FOR EACH ROW EXECUTE FUNCTION logfeed_access_changed();
