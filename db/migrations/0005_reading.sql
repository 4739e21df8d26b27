-- What makes reading cheap: knowing what has not changed, and indexes of what is still written.

-- One row: how often the catalogue has changed, or rows were stored that no offset counts (dead letters that are replayed).
-- Moves in the transaction of the change, under the row's lock: two snapshots with the same number have the same catalogue.
-- Triggers, so that whoever makes the change need not know of it. Deferred, so that the lock is taken at the COMMIT, after every
-- other: whoever replays a letter copies rows and waits for the border in between, and the closer waits for this row with the
-- border in its hand. Once a transaction, so that ten thousand letters that are dropped at once move it once.
CREATE TABLE catalogue_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO catalogue_version (version) VALUES (1);

CREATE FUNCTION logfeed_catalogue_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE catalogue_version SET version = version + 1 WHERE xmin::text::bigint <> txid_current() & 4294967295;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER catalogue_changed AFTER INSERT OR UPDATE OR DELETE ON catalogue
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION logfeed_catalogue_changed();
CREATE CONSTRAINT TRIGGER letters_taken AFTER DELETE ON dead_letters
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION logfeed_catalogue_changed();

-- Tables finished from now on have a GIN index on metadata; older ones get it one after the other.
ALTER TABLE catalogue ADD COLUMN metadata_indexed boolean NOT NULL DEFAULT false;

-- Which transaction brought a row: what came before one that has ended is complete, whatever ids and times come later. Rows
-- from before this migration have 0.
ALTER TABLE logs ADD COLUMN arrived bigint DEFAULT 0;
ALTER TABLE logs ALTER COLUMN arrived SET DEFAULT txid_current();
DO $$
DECLARE
    late text;
BEGIN
    FOR late IN SELECT table_name FROM catalogue WHERE kind = 'late' AND state <> 'finished' LOOP
        EXECUTE format('ALTER TABLE %I ADD COLUMN arrived bigint DEFAULT 0', late);
        EXECUTE format('ALTER TABLE %I ALTER COLUMN arrived SET DEFAULT txid_current()', late);
        EXECUTE format('CREATE INDEX ON %I (arrived)', late);
    END LOOP;
END
$$;

-- What indexes the rows of chunks that are not finished yet (store/parts.py), by correlation id or by metadata. A part is a
-- table of its own, complete for from_xid <= arrived < to_xid and open_from <= timestamp; it never changes, nor does its row.
-- Unlogged, this table as well as the parts: after a crash all of them are empty, which says that nothing is indexed. Another
-- cluster counts transactions differently, and so does one that was copied and has gone on by itself: a part that a dump
-- brought is known by built_xid, which is not the transaction that brought its row.
CREATE UNLOGGED TABLE open_parts (
    table_name text COLLATE "C" PRIMARY KEY,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('correlation', 'metadata')),
    from_xid bigint NOT NULL,
    to_xid bigint NOT NULL,
    rows bigint NOT NULL,
    open_from timestamptz NOT NULL,
    range_start timestamptz NOT NULL,
    range_end timestamptz NOT NULL,
    open_bytes jsonb NOT NULL,
    keys text[] COLLATE "C" NOT NULL DEFAULT '{}',
    built_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    built_xid bigint NOT NULL DEFAULT txid_current(),
    EXCLUDE USING gist (int8range(from_xid, to_xid) WITH &&) WHERE (kind = 'correlation'),
    EXCLUDE USING gist (int8range(from_xid, to_xid) WITH &&) WHERE (kind = 'metadata')
);
COMMENT ON COLUMN open_parts.rows IS 'rows of logs that the part stands for, those that need no entry included';
COMMENT ON COLUMN open_parts.open_from IS 'where chunks that were not finished began when the part was made';
COMMENT ON COLUMN open_parts.range_start IS 'no timestamp of these is less';
COMMENT ON COLUMN open_parts.range_end IS 'greater than every timestamp of these';
COMMENT ON COLUMN open_parts.keys IS 'top-level keys of metadata that a part by metadata holds; it says nothing about others';
COMMENT ON COLUMN open_parts.open_bytes IS 'of each chunk that was not finished when the part was made: what they have grown since is in no part';

-- Top-level keys of metadata by whose values something rare was lately sought: open chunks are indexed by these alone. What
-- nobody asks for costs nothing.
CREATE TABLE asked_keys (
    key text COLLATE "C" PRIMARY KEY,
    asked_at timestamptz NOT NULL
);
