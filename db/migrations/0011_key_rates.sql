-- What a key may send, beside which services (access/principal.py, RateLimits): NULL is what the settings say, infinity no limit.
ALTER TABLE api_keys
    ADD COLUMN logs_per_s double precision CHECK (logs_per_s > 0 AND logs_per_s <> 'NaN'),
    ADD COLUMN bytes_per_s double precision CHECK (bytes_per_s > 0 AND bytes_per_s <> 'NaN'),
    ADD COLUMN burst_s double precision NOT NULL DEFAULT 1 CHECK (burst_s > 0 AND burst_s < 'infinity');
COMMENT ON COLUMN api_keys.bytes_per_s IS 'of bodies, decompressed';
COMMENT ON COLUMN api_keys.burst_s IS 'seconds'' worth that may come at once after a pause';
