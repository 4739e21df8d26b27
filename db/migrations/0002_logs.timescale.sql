-- Rows on TimescaleDB (Apache edition): a hypertable; store/chunks.py makes its chunks ahead of time.
-- Indexes of open chunks are few and cheap; a closed chunk gets the others in bulk. No unique index: ids are unique by
-- construction, and checking it would cost as much as all of these.

CREATE EXTENSION IF NOT EXISTS timescaledb;

CREATE TABLE logs (
    timestamp timestamptz NOT NULL,
    id bigint NOT NULL,
    level smallint NOT NULL,
    service_name text COLLATE "C" NOT NULL,
    correlation_id text COLLATE "C",
    message text COLLATE "C" NOT NULL,
    metadata jsonb NOT NULL
);
SELECT create_hypertable('logs', by_range('timestamp', interval '6 hours'), create_default_indexes => false);

CREATE INDEX logs_timestamp_id ON logs (timestamp, id);
CREATE INDEX logs_id_brin ON logs USING brin (id) WITH (pages_per_range = 32);
CREATE INDEX logs_correlation_brin ON logs USING brin (correlation_id text_bloom_ops (n_distinct_per_range = 800, false_positive_rate = 0.01)) WITH (pages_per_range = 16);
