-- Who reads logs by SQL (access/sql_roles.py). Their PostgreSQL roles belong to the server; what each of them sees stands here,
-- is part of this database, and is asked anew by each statement.

CREATE TABLE sql_readers (
    role_name text COLLATE "C" PRIMARY KEY,
    names text[] COLLATE "C" NOT NULL,
    prefixes text[] COLLATE "C" NOT NULL,
    excluded text[] COLLATE "C" NOT NULL,
    valid_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL
);
COMMENT ON COLUMN sql_readers.prefixes IS 'of services; the empty one is that of all';
COMMENT ON COLUMN sql_readers.excluded IS 'exact names that neither names nor prefixes let through';

-- Nobody's row, which the policy hides: whoever sees it is not held by policies, and the view shows them nothing.
INSERT INTO sql_readers (role_name, names, prefixes, excluded, created_by) VALUES ('', '{}', '{}', '{}', '');
ALTER TABLE sql_readers ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_row ON sql_readers FOR SELECT
    USING (role_name = current_user AND (valid_until IS NULL OR valid_until > now()));

-- How long whose logs are shown: the retention classes in the order in which they are tried, `default` last. The role `tier`
-- writes down what it was started with. No rows: nothing is hidden.
CREATE TABLE sql_retention (
    place integer PRIMARY KEY,
    names text[] COLLATE "C" NOT NULL,
    prefixes text[] COLLATE "C" NOT NULL,
    level_min smallint NOT NULL,
    level_max smallint NOT NULL,
    age interval NOT NULL
);

-- All late tables as one: a view that named them would keep them from being dropped. It has no rows of its own, and nobody who
-- writes asks it. A child comes and goes without a lock on it that a reader minds.
CREATE TABLE late_logs (
    timestamp timestamptz NOT NULL,
    id bigint NOT NULL,
    level smallint NOT NULL,
    service_name text COLLATE "C" NOT NULL,
    correlation_id text COLLATE "C",
    message text COLLATE "C" NOT NULL,
    metadata jsonb NOT NULL
);

-- A trigger, so that a program one version older makes late tables that belong to it, too.
CREATE FUNCTION logfeed_late_table_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass(NEW.table_name) IS NOT NULL
        AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(NEW.table_name)) THEN
        EXECUTE 'ALTER TABLE ' || to_regclass(NEW.table_name)::text || ' INHERIT late_logs';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER late_table_made AFTER INSERT ON catalogue
    FOR EACH ROW WHEN (NEW.kind = 'late') EXECUTE FUNCTION logfeed_late_table_made();

DO $$
DECLARE
    late regclass;
BEGIN
    FOR late IN SELECT to_regclass(table_name) FROM catalogue WHERE kind = 'late' AND to_regclass(table_name) IS NOT NULL LOOP
        EXECUTE 'ALTER TABLE ' || late::text || ' INHERIT late_logs';
    END LOOP;
END
$$;
