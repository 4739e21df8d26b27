-- The durable queue of the embedded profile (broker/queue.py). Records lie in three tables that rotate: one takes the
-- appends (active), the others are full (closed) or truncated (empty). Offsets, append times and running byte totals are
-- handed out under the lock of the partition's row, which is held to the commit: order of visibility = order of offsets.

-- One row per partition. Everything here is exact in any snapshot; a record exists if first_offset <= offset < next_offset.
CREATE TABLE queue_partitions (
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    first_offset bigint NOT NULL DEFAULT 0,
    first_bytes bigint NOT NULL DEFAULT 0,
    next_offset bigint NOT NULL DEFAULT 0,
    next_bytes bigint NOT NULL DEFAULT 0,
    append_ms bigint NOT NULL DEFAULT 0,
    slot smallint NOT NULL,
    slot_offset bigint NOT NULL DEFAULT 0,
    slot_bytes bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
COMMENT ON COLUMN queue_partitions.first_bytes IS 'bytes of all records before first_offset, ever';
COMMENT ON COLUMN queue_partitions.next_bytes IS 'bytes of all records before next_offset, ever';
COMMENT ON COLUMN queue_partitions.append_ms IS 'append time of the newest record: never decreases';
COMMENT ON COLUMN queue_partitions.slot IS 'number of the table that takes appends; slot_offset, slot_bytes: where it begins';

-- The three tables. Changed only under advisory lock 7410.
CREATE TABLE queue_slots (
    slot smallint PRIMARY KEY CHECK (slot BETWEEN 0 AND 2),
    state text NOT NULL CHECK (state IN ('active', 'closed', 'empty')),
    generation bigint NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO queue_slots (slot, state, generation) VALUES (0, 'active', 1), (1, 'empty', 0), (2, 'empty', 0);

-- Where each closed table ends, per partition: its records are those before end_offset that no older table holds.
CREATE TABLE queue_ranges (
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    generation bigint NOT NULL,
    slot smallint NOT NULL,
    end_offset bigint NOT NULL,
    end_bytes bigint NOT NULL,
    PRIMARY KEY (topic, partition, generation)
);

-- How far each group has stored. bytes_done: bytes of all records before next_offset, ever.
CREATE TABLE queue_groups (
    topic text COLLATE "C" NOT NULL,
    group_name text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    bytes_done bigint NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, group_name, partition)
) WITH (fillfactor = 50);

-- Values are compressed already: EXTERNAL keeps PostgreSQL from trying again. Rows are never updated or deleted one by
-- one, and TRUNCATE leaves nothing to vacuum. bytes_before: bytes of all earlier records of the partition, ever.
CREATE TABLE queue_0 (
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    append_ms bigint NOT NULL,
    bytes_before bigint NOT NULL,
    size_bytes integer NOT NULL,
    headers bytea STORAGE EXTERNAL NOT NULL,
    value bytea STORAGE EXTERNAL NOT NULL,
    PRIMARY KEY (topic, partition, "offset")
) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);
CREATE TABLE queue_1 (LIKE queue_0 INCLUDING ALL) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);
CREATE TABLE queue_2 (LIKE queue_0 INCLUDING ALL) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);

-- Appends records (sorted by partition: locks are taken in that order) and returns their offsets. One call is one
-- transaction, so that no client ever holds the locks: a stopped producer stops nobody else. The row is read, and the
-- clock too, only after its lock was granted. An abort gives the offsets back. Raises P0002 for an unknown partition.
CREATE FUNCTION logfeed_queue_append(in_topic text, in_partitions integer[], in_sizes integer[], in_headers bytea[], in_values bytea[])
RETURNS bigint[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    last constant integer := cardinality(in_partitions);
    here queue_partitions%ROWTYPE;
    offsets bigint[] := '{}';
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    FOR i IN 1 .. last LOOP
        IF i = 1 OR in_partitions[i] <> in_partitions[i - 1] THEN
            SELECT * INTO STRICT here FROM queue_partitions p
            WHERE p.topic = in_topic AND p.partition = in_partitions[i] FOR UPDATE;
            here.append_ms := greatest(here.append_ms, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint);
        END IF;
        IF here.slot = 0 THEN
            INSERT INTO queue_0 VALUES (in_topic, here.partition, here.next_offset, here.append_ms, here.next_bytes,
                in_sizes[i], in_headers[i], in_values[i]);
        ELSIF here.slot = 1 THEN
            INSERT INTO queue_1 VALUES (in_topic, here.partition, here.next_offset, here.append_ms, here.next_bytes,
                in_sizes[i], in_headers[i], in_values[i]);
        ELSE
            INSERT INTO queue_2 VALUES (in_topic, here.partition, here.next_offset, here.append_ms, here.next_bytes,
                in_sizes[i], in_headers[i], in_values[i]);
        END IF;
        offsets := offsets || here.next_offset;
        here.next_offset := here.next_offset + 1;
        here.next_bytes := here.next_bytes + in_sizes[i];
        IF i = last OR in_partitions[i + 1] <> in_partitions[i] THEN
            UPDATE queue_partitions p SET next_offset = here.next_offset, next_bytes = here.next_bytes, append_ms = here.append_ms
            WHERE p.topic = in_topic AND p.partition = here.partition;
        END IF;
    END LOOP;
    RETURN offsets;
END
$$;
