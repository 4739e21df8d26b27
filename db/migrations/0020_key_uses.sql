-- When an API key was used last, to the minute or so (access/key_uses.py).
ALTER TABLE api_keys ADD COLUMN last_used_at timestamptz;
COMMENT ON COLUMN api_keys.last_used_at IS 'by any process, a minute late at most; NULL: never, or before this was written down';
-- Room for rows that are written again and again: they stay on their page, and no index is touched.
ALTER TABLE api_keys SET (fillfactor = 70);

-- A use is no change of who may what: no process has to read anything anew.
DROP TRIGGER api_keys_changed ON api_keys;
CREATE TRIGGER api_keys_made BEFORE INSERT ON api_keys
    FOR EACH ROW EXECUTE FUNCTION logfeed_access_changed();
CREATE TRIGGER api_keys_changed BEFORE UPDATE ON api_keys
    FOR EACH ROW WHEN (NEW.last_used_at IS NOT DISTINCT FROM OLD.last_used_at) EXECUTE FUNCTION logfeed_access_changed();
