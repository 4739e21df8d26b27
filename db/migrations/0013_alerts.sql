-- Alerting (alerts/). One leader at a time (lease `alerts`) writes the evaluator's tables, each time in one transaction that holds
-- the lease's row at its epoch; people write rules, silences and resets.

-- One row: how often rules or silences have changed. Moves in the transaction of the change.
CREATE TABLE alert_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO alert_version (version) VALUES (1);

CREATE TABLE alert_rules (
    name text COLLATE "C" PRIMARY KEY,
    owner text NOT NULL,
    document jsonb NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by text NOT NULL,
    problem text
);
COMMENT ON COLUMN alert_rules.owner IS 'subject whose rights the rule has (user:7, key:…); file: from the files of alerts.rules';
COMMENT ON COLUMN alert_rules.problem IS 'why it is not evaluated; written by the leader';

CREATE TABLE alert_silences (
    silence_id text COLLATE "C" PRIMARY KEY,
    matchers jsonb NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    author text NOT NULL,
    subject text NOT NULL,
    comment text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (starts_at < ends_at)
);
CREATE INDEX alert_silences_ends ON alert_silences (ends_at);

-- How far the topic was read, and everything that was known by then: one moment, so that no decision is lost or made twice.
CREATE TABLE alert_evaluator (
    topic text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    epoch bigint NOT NULL,
    positions jsonb NOT NULL,
    read_to jsonb NOT NULL,
    notifier bytea NOT NULL,
    figures jsonb NOT NULL DEFAULT '{}',
    saved_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN alert_evaluator.positions IS 'partition -> next offset';
COMMENT ON COLUMN alert_evaluator.read_to IS 'partition -> Unix microseconds: everything appended before was read';
COMMENT ON COLUMN alert_evaluator.notifier IS 'alerts/notify.py, NotifierState, msgpack in zstd';
COMMENT ON COLUMN alert_evaluator.figures IS 'for people: logs late and the like';

CREATE TABLE alert_states (
    topic text COLLATE "C" NOT NULL,
    rule text COLLATE "C" NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (topic, rule)
);
COMMENT ON COLUMN alert_states.state IS 'alerts/evaluate.py, RuleState, msgpack in zstd';

CREATE TABLE alerts (
    alert_id text COLLATE "C" PRIMARY KEY,
    rule text COLLATE "C" NOT NULL,
    state text NOT NULL CHECK (state IN ('firing', 'resolved')),
    severity text NOT NULL,
    labels jsonb NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    alert jsonb NOT NULL
);
CREATE INDEX alerts_started ON alerts (started_at DESC, alert_id);
CREATE INDEX alerts_firing ON alerts (started_at DESC) WHERE state = 'firing';

-- Messages on their way, and those that went lately. Written with the decisions that brought them about.
CREATE TABLE alert_outbox (
    notification_id text COLLATE "C" PRIMARY KEY,
    rule text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    body jsonb NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'dead')),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    problem text
);
CREATE INDEX alert_outbox_due ON alert_outbox (channel, next_attempt_at) WHERE state = 'waiting';
CREATE INDEX alert_outbox_created ON alert_outbox (created_at DESC, notification_id);

-- For people: what the breakers are at. The truth is in alert_evaluator.notifier.
CREATE TABLE alert_breakers (
    rule text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    state text NOT NULL,
    since timestamptz NOT NULL,
    held integer NOT NULL,
    opened integer NOT NULL,
    PRIMARY KEY (rule, channel)
);

-- What people ask of the leader: it does so, and removes the row, in one transaction.
CREATE TABLE alert_resets (
    reset_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule text NOT NULL,
    channel text NOT NULL,
    asked_by text NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
