-- Derived topics (routes/): where the router stands and, where there is no Kafka, the topics themselves (broker/topic_table.py).

-- How far the logs' topic was routed. Written by who holds the lease `routes`, at its epoch.
CREATE TABLE route_positions (
    topic text COLLATE "C" PRIMARY KEY,
    epoch bigint NOT NULL,
    positions jsonb NOT NULL,
    saved_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON COLUMN route_positions.positions IS 'partition -> next offset; everything before it is in its topics';

-- One row per topic. A record exists if first_offset <= offset < next_offset.
CREATE TABLE topics (
    name text COLLATE "C" PRIMARY KEY,
    first_offset bigint NOT NULL DEFAULT 0,
    next_offset bigint NOT NULL DEFAULT 0,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- Records lie in eight tables that are filled in turn, each for a seventh of the retention: the oldest is truncated and filled anew.
CREATE TABLE topic_slots (
    slot smallint PRIMARY KEY CHECK (slot BETWEEN 0 AND 7),
    is_active boolean NOT NULL,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    size_bytes bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO topic_slots (slot, is_active) SELECT number, number = 0 FROM generate_series(0, 7) AS number;

CREATE TABLE topic_records (
    topic text COLLATE "C" NOT NULL,
    "offset" bigint NOT NULL,
    slot smallint NOT NULL,
    append_ms bigint NOT NULL,
    key bytea NOT NULL,
    headers bytea NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (topic, "offset", slot)
) PARTITION BY LIST (slot);
COMMENT ON COLUMN topic_records.headers IS 'msgpack: [[name, value], …]';

-- Rows are never updated or deleted one by one, and TRUNCATE leaves nothing to vacuum.
DO $$
BEGIN
    FOR number IN 0 .. 7 LOOP
        EXECUTE format(
            'CREATE TABLE topic_records_%s PARTITION OF topic_records FOR VALUES IN (%s)'
            ' WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false)', number, number);
    END LOOP;
END
$$;

-- Appends records of several topics, in their order. One call is one transaction under advisory lock 7411, which is held to the
-- commit: offsets have no gaps, and become visible in their order. No client ever holds the lock across a round trip.
-- Raises P0002 for a topic that is not there.
CREATE FUNCTION logfeed_topics_append(in_topics text[], in_keys bytea[], in_headers bytea[], in_values bytea[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    active smallint;
    appended integer;
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    PERFORM pg_advisory_xact_lock(7411);
    UPDATE topic_slots
    SET size_bytes = size_bytes + (
        SELECT sum(octet_length(key) + octet_length(headers) + octet_length(value))
        FROM unnest(in_keys, in_headers, in_values) AS sizes (key, headers, value))
    WHERE is_active
    RETURNING slot INTO STRICT active;
    INSERT INTO topic_records (topic, "offset", slot, append_ms, key, headers, value)
    SELECT t.name, t.next_offset + n.nth - 1, active, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint,
        n.key, n.headers, n.value
    FROM (
        SELECT topic, key, headers, value, row_number() OVER (PARTITION BY topic ORDER BY place) AS nth
        FROM unnest(in_topics, in_keys, in_headers, in_values) WITH ORDINALITY AS given (topic, key, headers, value, place)
    ) AS n
    JOIN topics t ON t.name = n.topic;
    GET DIAGNOSTICS appended = ROW_COUNT;
    IF appended <> cardinality(in_topics) THEN
        RAISE no_data_found USING MESSAGE = 'a topic is missing';
    END IF;
    UPDATE topics t SET next_offset = t.next_offset + given.records
    FROM (SELECT name, count(*) AS records FROM unnest(in_topics) AS name GROUP BY name) AS given
    WHERE t.name = given.name;
END
$$;

-- Begins the next table when the active one was filled for long enough, or is full: what was in the next one is gone, and
-- first_offset says so in the same transaction. Returns its number, or NULL. Gives way to readers: raises 55P03 after 200 ms.
CREATE FUNCTION logfeed_topics_rotate(in_slot_s double precision, in_slot_bytes bigint)
RETURNS smallint LANGUAGE plpgsql VOLATILE SET lock_timeout = '200ms' AS $$
DECLARE
    here topic_slots%ROWTYPE;
    following smallint;
BEGIN
    PERFORM pg_advisory_xact_lock(7411);
    SELECT * INTO STRICT here FROM topic_slots WHERE is_active;
    IF here.size_bytes < in_slot_bytes AND here.began_at > clock_timestamp() - make_interval(secs => in_slot_s) THEN
        RETURN NULL;
    END IF;
    following := (here.slot + 1) % 8;
    EXECUTE format('TRUNCATE topic_records_%s', following);
    UPDATE topics t SET first_offset = coalesce(
        (SELECT min(r."offset") FROM topic_records r WHERE r.topic = t.name), t.next_offset);
    UPDATE topic_slots SET is_active = false WHERE slot = here.slot;
    UPDATE topic_slots SET is_active = true, began_at = clock_timestamp(), size_bytes = 0 WHERE slot = following;
    RETURN following;
END
$$;
