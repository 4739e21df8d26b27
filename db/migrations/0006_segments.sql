-- Files of rows (store/segments): which there are, and which of them readers ask instead of tables.

-- `written`: the file is there and was read back; the tables it came from still have its rows, and readers may ask either.
-- `serving`: the tables are gone from the catalogue, the file alone has the rows. `retired`: nobody asks it any more; the file
-- goes 10 minutes later, because a page may still read it. Tier: where readers get the file. Every change is made in a
-- transaction that holds the lease `tier` at the epoch of whoever makes it. Names are never given again.
CREATE TABLE segments (
    name text COLLATE "C" PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('written', 'serving', 'retired')),
    tier text NOT NULL CHECK (tier IN ('warm', 'cold')),
    retention_class text COLLATE "C" NOT NULL,
    sources text[] COLLATE "C" NOT NULL,
    range_start timestamptz NOT NULL,
    range_end timestamptz NOT NULL,
    rows bigint NOT NULL CHECK (rows > 0),
    bytes bigint NOT NULL,
    info jsonb NOT NULL,
    epoch bigint NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    verified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    serving_at timestamptz,
    retired_at timestamptz,
    moved_at timestamptz,
    warm_until timestamptz
);
CREATE INDEX segments_range ON segments (range_start);
COMMENT ON COLUMN segments.sources IS 'tables, or segments, of which it has all rows of its retention class';
COMMENT ON COLUMN segments.range_end IS 'greater than every timestamp of its rows';
COMMENT ON COLUMN segments.moved_at IS 'when it came to its tier, where it was in another one before';
COMMENT ON COLUMN segments.warm_until IS 'brought back from object storage: it does not go there again before';
COMMENT ON COLUMN segments.info IS 'SegmentInfo (store/segments/format.py)';
COMMENT ON COLUMN segments.verified_at IS 'when the file was last read back whole and found as it was written';

CREATE CONSTRAINT TRIGGER segments_changed AFTER INSERT OR DELETE OR UPDATE OF state, tier ON segments
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION logfeed_catalogue_changed();

-- When all rows of a finished table that any retention class keeps were in segments, written and verified.
ALTER TABLE catalogue ADD COLUMN segmented_at timestamptz;
