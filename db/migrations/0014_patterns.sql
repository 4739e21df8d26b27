-- Patterns of lines, and counts of them (mining/, store/patterns/). One process at a time (lease `patterns`) writes all of it,
-- each time in one transaction that holds the lease's row at its epoch. Minutes and hours are counted since the Unix epoch.

-- How far the topic was read, and what was known by then: one moment with the counts, so that each log counts once.
CREATE TABLE pattern_miner (
    topic text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    epoch bigint NOT NULL,
    positions jsonb NOT NULL,
    read_to jsonb NOT NULL,
    counted_from timestamptz,
    counted_through timestamptz,
    snapshot bytea NOT NULL,
    saved_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN pattern_miner.positions IS 'partition -> next offset';
COMMENT ON COLUMN pattern_miner.read_to IS 'partition -> Unix microseconds: everything appended before was read';
COMMENT ON COLUMN pattern_miner.counted_from IS 'logs appended before may be missing; null: nothing was counted yet';
COMMENT ON COLUMN pattern_miner.counted_through IS 'everything appended before was counted; null: not known yet';
COMMENT ON COLUMN pattern_miner.snapshot IS 'patterns/miner.py, Miner.snapshot, in zstd';

-- Text of logs: whoever reads it must hold service_name against what they may read.
CREATE TABLE pattern_templates (
    key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service_name text COLLATE "C" NOT NULL,
    pattern_id bigint NOT NULL,
    template text COLLATE "C" NOT NULL,
    first_minute integer NOT NULL,
    last_minute integer NOT NULL,
    into_key bigint REFERENCES pattern_templates ON DELETE SET NULL,
    UNIQUE (service_name, pattern_id)
) WITH (fillfactor = 70);
COMMENT ON COLUMN pattern_templates.pattern_id IS '0: lines whose pattern was not kept';
COMMENT ON COLUMN pattern_templates.first_minute IS 'least timestamp of its lines, those of what was merged into it included';
COMMENT ON COLUMN pattern_templates.into_key IS 'the more general pattern that its counts are read as; never a chain';
CREATE INDEX pattern_templates_into ON pattern_templates (into_key) WHERE into_key IS NOT NULL;
CREATE INDEX pattern_templates_id ON pattern_templates (pattern_id);

-- By timestamps. A line is in one row of each.
CREATE TABLE pattern_minutes (
    key bigint NOT NULL,
    start integer NOT NULL,
    level smallint NOT NULL,
    lines bigint NOT NULL,
    samples bigint[] NOT NULL,
    PRIMARY KEY (key, start, level)
) WITH (fillfactor = 70);
CREATE INDEX pattern_minutes_start ON pattern_minutes (start);
COMMENT ON COLUMN pattern_minutes.samples IS 'ids of up to three logs, ascending';

CREATE TABLE pattern_hours (
    key bigint NOT NULL,
    start integer NOT NULL,
    level smallint NOT NULL,
    lines bigint NOT NULL,
    samples bigint[] NOT NULL,
    PRIMARY KEY (key, start, level)
) WITH (fillfactor = 50);
CREATE INDEX pattern_hours_start ON pattern_hours (start);

-- Records that were gone before they were counted.
CREATE TABLE pattern_gaps (
    gap_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    from_time timestamptz NOT NULL,
    to_time timestamptz NOT NULL,
    reason text NOT NULL
);
COMMENT ON TABLE pattern_gaps IS 'what was appended between the times is missing from the counts, or some of it';
