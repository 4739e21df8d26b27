-- What makes reading cheap: a number that says whether the catalogue is the one a reader knows.

-- One row: how often the catalogue has changed. Moves in the transaction of the change, under the row's lock: two snapshots
-- with the same number have the same catalogue. Triggers, so that whoever changes the catalogue need not know of it.
CREATE TABLE catalogue_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO catalogue_version (version) VALUES (1);

CREATE FUNCTION logfeed_catalogue_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE catalogue_version SET version = version + 1;
    RETURN NULL;
END
$$;
CREATE TRIGGER catalogue_changed AFTER INSERT OR UPDATE OR DELETE ON catalogue
    FOR EACH ROW EXECUTE FUNCTION logfeed_catalogue_changed();

-- Tables finished from now on have a GIN index on metadata; older ones get it one after the other.
ALTER TABLE catalogue ADD COLUMN metadata_indexed boolean NOT NULL DEFAULT false;
