-- Everything beside the rows: ownership, catalogue, keys, ledger, dead letters, ids, secrets.
-- Times are timestamptz in UTC. Tables that are written with the rows have no foreign keys and no triggers.

-- Raises `code` unless actual = expected. VOLATILE, so that it is executed where it stands: a COMMIT queued behind a
-- raising statement in a pipeline is never executed.
CREATE FUNCTION logfeed_expect(actual bigint, expected bigint, code text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF actual IS DISTINCT FROM expected THEN
        RAISE EXCEPTION 'expected % rows, found %', expected, actual USING ERRCODE = code;
    END IF;
END
$$;

-- Which writer owns a partition and how far its rows are stored. Moves in the transaction of the rows (INV-2).
CREATE TABLE consumer_offsets (
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    owner text,
    epoch bigint NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    next_offset bigint NOT NULL DEFAULT 0,
    last_frame_id bytea,
    stored_to timestamptz NOT NULL DEFAULT '-infinity',
    backend_pid integer,
    backend_start timestamptz,
    halted text,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

-- Writers that live, with or without a partition: the fair share counts them. `token` tells processes under one name apart.
CREATE TABLE writers (
    name text COLLATE "C" PRIMARY KEY,
    token text NOT NULL,
    seen_until timestamptz NOT NULL
);

-- One row: where open storage begins. Guarded by advisory lock 7401 (shared: writers, exclusive: the closer).
CREATE TABLE border (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    closed_before timestamptz NOT NULL,
    late_generation integer NOT NULL
);

-- Every table that holds rows, open or closed. `table_name` can stand in SQL as it is: lower case, with its schema where
-- that is not the first of the search path (TimescaleDB's chunks). `kind` chunk: range_start <= timestamp < range_end;
-- late: range_* are the least timestamp and the greatest + 1 µs found when it was finished.
CREATE TABLE catalogue (
    table_name text COLLATE "C" PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('chunk', 'late')),
    generation integer,
    state text NOT NULL CHECK (state IN ('open', 'closed', 'finished')),
    range_start timestamptz,
    range_end timestamptz,
    rows bigint,
    id_min bigint,
    id_max bigint,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at timestamptz,
    finished_at timestamptz
);

-- Tables past retention. They left the catalogue in the transaction that put them here and are dropped 10 minutes later:
-- a drop is seen whatever the snapshot, and a page may still read one.
CREATE TABLE expired_tables (
    table_name text COLLATE "C" PRIMARY KEY,
    kind text NOT NULL,
    expired_at timestamptz NOT NULL
);

-- Idempotency keys that were stored, a table per UTC day of storing. The hash comes first: keys are asked on every day.
CREATE TABLE stored_keys (
    stored_day date NOT NULL,
    key_hash bytea NOT NULL,
    body_sha256 bytea NOT NULL,
    PRIMARY KEY (key_hash, stored_day)
) PARTITION BY RANGE (stored_day);

-- The answer a keyed request was about to get. Losing it costs only the answer's ids: hence unlogged.
CREATE UNLOGGED TABLE id_reservations (
    key_hash bytea PRIMARY KEY,
    body_sha256 bytea NOT NULL,
    received_ms bigint NOT NULL,
    first_id bigint NOT NULL,
    answer bytea NOT NULL,
    reserved_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX id_reservations_reserved_at ON id_reservations (reserved_at);

-- INV-1. Appended with the rows; older minutes are summed into ledger_minutes in one transaction that deletes them here.
CREATE TABLE ledger (
    minute timestamptz NOT NULL,
    service_name text COLLATE "C" NOT NULL,
    level smallint NOT NULL,
    outcome text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    appended_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ledger_minute ON ledger (minute);

CREATE TABLE ledger_minutes (
    minute timestamptz NOT NULL,
    service_name text COLLATE "C" NOT NULL,
    level smallint NOT NULL,
    outcome text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (minute, service_name, level, outcome, reason)
);

-- What ledger_minutes has ever held as stored, its expired minutes included: moves in the transaction that sums the ledger.
CREATE TABLE service_totals (
    service_name text COLLATE "C" NOT NULL,
    level smallint NOT NULL,
    count bigint NOT NULL,
    last_minute timestamptz NOT NULL,
    PRIMARY KEY (service_name, level)
);

CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    line_index integer NOT NULL,
    log_id bigint,
    service_name text COLLATE "C" NOT NULL,
    received_minute timestamptz NOT NULL,
    reason text COLLATE "C" NOT NULL,
    detail text NOT NULL,
    line bytea NOT NULL,
    died_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Worker ids of the id generator. A worker id is free again when its lease ran out; ids up to reserved_until_ms may have
-- been given out by its last holder.
CREATE TABLE worker_ids (
    worker smallint PRIMARY KEY CHECK (worker BETWEEN 0 AND 1023),
    owner text NOT NULL,
    lease_until timestamptz NOT NULL,
    reserved_until_ms bigint NOT NULL
);

-- Roles that only one process has at a time (sealer, …).
CREATE TABLE leases (
    name text COLLATE "C" PRIMARY KEY,
    owner text,
    epoch bigint NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity'
);

CREATE TABLE secrets (
    name text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL
);
