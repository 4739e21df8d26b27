-- Connections (connections/, ingest/connections/, query/connections/): who was connected, and what was read of both logs. The lines
-- themselves are logs like others, of the sides' services, with metadata.connection_id and side.

CREATE TABLE connection_totals (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    connections bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO connection_totals (connections) VALUES (0);

CREATE TABLE connections (
    connection_id text COLLATE "C" PRIMARY KEY,
    username text COLLATE "C" NOT NULL,
    ip text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    last_updated timestamptz NOT NULL,
    put_at timestamptz NOT NULL,
    shift_us bigint
) WITH (fillfactor = 80);
COMMENT ON COLUMN connections.put_at IS 'when it was last put; it goes when that is past the retention';
COMMENT ON COLUMN connections.shift_us IS 'what is added to the times of its lines; null: nobody has decided yet';
CREATE INDEX connections_updated ON connections (last_updated DESC, connection_id DESC);
CREATE INDEX connections_put ON connections (put_at);

-- One row for each text. It was stored up to stored_bytes; what lies between that and pending_end may be in the broker already, under
-- a key of its own, and is sent again as it was before anything else is.
CREATE TABLE connection_sides (
    connection_id text COLLATE "C" NOT NULL REFERENCES connections ON DELETE CASCADE,
    side text COLLATE "C" NOT NULL CHECK (side IN ('server', 'client')),
    service_name text COLLATE "C" NOT NULL,
    stored_bytes bigint NOT NULL DEFAULT 0,
    stored_line_ends bigint NOT NULL DEFAULT 0,
    stored_sha256 bytea NOT NULL,
    carried_us bigint,
    pending_end bigint,
    pending_sha256 bytea,
    pending_us bigint,
    lines bigint NOT NULL DEFAULT 0,
    errors bigint NOT NULL DEFAULT 0,
    warnings bigint NOT NULL DEFAULT 0,
    filtered bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    first_us bigint,
    last_us bigint,
    PRIMARY KEY (connection_id, side)
) WITH (fillfactor = 70);
COMMENT ON COLUMN connection_sides.stored_sha256 IS 'of the first stored_bytes of the text';
COMMENT ON COLUMN connection_sides.carried_us IS 'time of the last line that said one: of those after it that say none';
COMMENT ON COLUMN connection_sides.pending_sha256 IS 'of the text up to pending_end';
COMMENT ON COLUMN connection_sides.pending_us IS 'the time by which its lines were judged';
COMMENT ON COLUMN connection_sides.first_us IS 'least timestamp of its lines; last_us: the greatest';
CREATE INDEX connection_sides_errors ON connection_sides (connection_id) WHERE errors > 0;

CREATE TABLE connection_series (
    connection_id text COLLATE "C" NOT NULL,
    side text COLLATE "C" NOT NULL,
    metric text COLLATE "C" NOT NULL,
    from_byte bigint NOT NULL,
    points bytea NOT NULL,
    PRIMARY KEY (connection_id, side, metric, from_byte),
    FOREIGN KEY (connection_id, side) REFERENCES connection_sides ON DELETE CASCADE
);
COMMENT ON COLUMN connection_series.points IS 'connections/series.py, Series.pack';

CREATE TABLE connection_metrics (
    connection_id text COLLATE "C" NOT NULL,
    side text COLLATE "C" NOT NULL,
    metric text COLLATE "C" NOT NULL,
    points bigint NOT NULL,
    median double precision NOT NULL,
    PRIMARY KEY (connection_id, side, metric),
    FOREIGN KEY (connection_id, side) REFERENCES connection_sides ON DELETE CASCADE
);

-- Text of logs: whoever reads it must hold its side's service_name against what they may read.
CREATE TABLE connection_errors (
    connection_id text COLLATE "C" NOT NULL,
    side text COLLATE "C" NOT NULL,
    message text COLLATE "C" NOT NULL,
    lines bigint NOT NULL,
    PRIMARY KEY (connection_id, side, message),
    FOREIGN KEY (connection_id, side) REFERENCES connection_sides ON DELETE CASCADE
);
COMMENT ON COLUMN connection_errors.message IS 'of lines of ERROR and above, numbers and the like masked; empty: those of further kinds';
