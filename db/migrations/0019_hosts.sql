-- Hosts whose agents read files there (query/hosts/). One row each, written anew by each heartbeat.
CREATE TABLE hosts (
    host text COLLATE "C" PRIMARY KEY,
    owner text COLLATE "C" NOT NULL,
    address text NOT NULL,
    token text NOT NULL,
    version text NOT NULL,
    services text[] NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON COLUMN hosts.owner IS 'subject of the key that registered the name first: no other one may';
COMMENT ON COLUMN hosts.token IS 'of the agent, until it starts again; whoever has it reads the files that the agent serves';
COMMENT ON COLUMN hosts.services IS 'of its files, as the agent says: shown, never a right';
