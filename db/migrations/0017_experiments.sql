-- Experiments (query/experiments/): what runs, and how it stands. Their logs are logs like others, with metadata.experiment_id.

-- One row: the number of the last change, and how many experiments there are. Moves in the transaction of each change, under the
-- row's lock: numbers become visible in their order, so "changed since n" misses nothing.
CREATE TABLE experiment_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL,
    experiments bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO experiment_version (version, experiments) VALUES (0, 0);

-- Whoever reads it must hold service_name against what they may read.
CREATE TABLE experiments (
    experiment_id text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    service_name text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('queued', 'running', 'paused', 'canceled', 'errored', 'completed')),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at timestamptz,
    metadata json NOT NULL,
    change bigint NOT NULL
) WITH (fillfactor = 70);
COMMENT ON COLUMN experiments.metadata IS 'json and not jsonb: the same text again is no change';
COMMENT ON COLUMN experiments.change IS 'experiment_version.version of the last change';
CREATE INDEX experiments_created ON experiments (created_at DESC, experiment_id DESC);
CREATE INDEX experiments_updated ON experiments (updated_at);
CREATE INDEX experiments_change ON experiments (change);
