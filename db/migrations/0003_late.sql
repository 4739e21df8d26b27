-- The first late generation (rows older than the border) and the border itself: open storage begins with the 6-hour chunk
-- that is current when the database is made.

CREATE TABLE logs_late_1 (
    timestamp timestamptz NOT NULL,
    id bigint NOT NULL,
    level smallint NOT NULL,
    service_name text COLLATE "C" NOT NULL,
    correlation_id text COLLATE "C",
    message text COLLATE "C" NOT NULL,
    metadata jsonb NOT NULL
);
CREATE INDEX logs_late_1_timestamp_id ON logs_late_1 (timestamp, id);
CREATE INDEX logs_late_1_id_brin ON logs_late_1 USING brin (id) WITH (pages_per_range = 32);
CREATE INDEX logs_late_1_correlation ON logs_late_1 (correlation_id, timestamp, id) WHERE correlation_id IS NOT NULL;

INSERT INTO catalogue (table_name, kind, generation, state) VALUES ('logs_late_1', 'late', 1, 'open');
INSERT INTO border (closed_before, late_generation)
VALUES (to_timestamp(floor(extract(epoch FROM clock_timestamp()) / 21600) * 21600), 1);
