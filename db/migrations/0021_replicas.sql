-- What indexes and sums open chunks is in the WAL from now on: a streaming replica reads it too, and after a crash or a failover
-- it is still there. Rewriting the rows takes them out of the transactions that brought them, so that what was made until now,
-- unlogged, counts no more and is made anew.
ALTER TABLE open_parts SET LOGGED;
ALTER TABLE open_sums SET LOGGED;
ALTER TABLE open_sum_rows SET LOGGED;

-- A program of before, which runs for a while beside this one, makes unlogged parts: a crash would empty one and leave its row,
-- and logs would be missing from answers. Such a part is not written down, and its table goes as one that nobody knows.
CREATE FUNCTION logfeed_part_lasts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT relpersistence FROM pg_class WHERE oid = to_regclass(NEW.table_name)) = 'u' THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER part_lasts BEFORE INSERT ON open_parts FOR EACH ROW EXECUTE FUNCTION logfeed_part_lasts();

-- Since when this database has been on a timeline of WAL: a promotion begins the next. What the last transactions before it gave
-- out may be unknown here, so worker numbers are given out with care for a while (db/worker_ids.py).
CREATE TABLE timelines (
    timeline bigint PRIMARY KEY,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
