-- What people keep for themselves, and sums of what is in chunks that are not finished.

-- For themselves (store/personal): bookmarks, and views of the page under a name. subject: as of principals, of
-- a user or an API key, or `anyone` where access control is off.

CREATE TABLE bookmarks (
    subject text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('log', 'connection', 'experiment')),
    target_id text COLLATE "C" NOT NULL,
    note text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (subject, kind, target_id)
);

CREATE TABLE saved_views (
    subject text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    address text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (subject, name)
);
COMMENT ON COLUMN saved_views.address IS 'path and query of the page';

-- They go with their subject: nobody comes back as a user who was disabled, or with a key that was revoked. A trigger, so that
-- whoever lets one go, by hand too, need not know of them.
CREATE FUNCTION logfeed_subject_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM bookmarks WHERE subject = TG_ARGV[0] || ':' || (to_jsonb(OLD) ->> TG_ARGV[1]);
    DELETE FROM saved_views WHERE subject = TG_ARGV[0] || ':' || (to_jsonb(OLD) ->> TG_ARGV[1]);
    RETURN NULL;
END
$$;
CREATE TRIGGER users_gone AFTER UPDATE OF disabled_at ON users
    FOR EACH ROW WHEN (NEW.disabled_at IS NOT NULL) EXECUTE FUNCTION logfeed_subject_gone('user', 'user_id');
CREATE TRIGGER users_deleted AFTER DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION logfeed_subject_gone('user', 'user_id');
CREATE TRIGGER api_keys_gone AFTER UPDATE OF revoked_at ON api_keys
    FOR EACH ROW WHEN (NEW.revoked_at IS NOT NULL) EXECUTE FUNCTION logfeed_subject_gone('key', 'prefix');
CREATE TRIGGER api_keys_deleted AFTER DELETE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION logfeed_subject_gone('key', 'prefix');

-- Rows of chunks that are not finished, summed (store/open_sums.py). A sum holds all rows from open_from on that transactions in
-- [from_xid, to_xid) brought; it never changes. Unlogged, and known by built_xid, as open_parts is: after a crash, and in another
-- cluster, nothing is summed.
CREATE UNLOGGED TABLE open_sums (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    from_xid bigint NOT NULL,
    to_xid bigint NOT NULL,
    entries bigint NOT NULL DEFAULT 0,
    open_from timestamptz NOT NULL,
    built_xid bigint NOT NULL DEFAULT txid_current(),
    EXCLUDE USING gist (int8range(from_xid, to_xid) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON COLUMN open_sums.entries IS 'of open_sum_rows';
CREATE UNLOGGED TABLE open_sum_rows (
    number bigint NOT NULL,
    minute timestamptz NOT NULL,
    service_name text COLLATE "C" NOT NULL,
    level smallint NOT NULL,
    rows bigint NOT NULL
);
COMMENT ON COLUMN open_sum_rows.number IS 'of open_sums';
CREATE INDEX open_sum_rows_minute ON open_sum_rows (minute);
