-- What was erased on request: who asked for what and when, and what came of it (store/tiers/erasing.py).
CREATE TABLE erasures (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    requested_by text NOT NULL,
    query text NOT NULL,
    finished_at timestamptz,
    certificate jsonb
);
COMMENT ON COLUMN erasures.certificate IS 'what was removed; NULL until everything was: an erasure that was killed is begun again';
