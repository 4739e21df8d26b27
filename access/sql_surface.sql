-- What readers by SQL see: one view over the tables of rows, and nothing else of this database. Executed as superuser, again and
-- again, in one transaction. Owned by a role that nobody can log in as and that row security holds, so that the view is no
-- subquery with a barrier: time, service and correlation id reach the indexes, and rows come in the order of one.

CREATE SCHEMA IF NOT EXISTS logfeed_sql;
COMMENT ON SCHEMA logfeed_sql IS 'Logs for readers by SQL: docs/sql.md';

CREATE OR REPLACE VIEW logfeed_sql.logs AS
SELECT
    id,
    timestamp,
    timestamptz 'epoch' + ((id >> 22) + 1704067200000) * interval '1 millisecond' AS received_at,
    service_name AS service,
    (ARRAY['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'])[(level + 3) / 4] AS level,
    level AS severity,
    message,
    correlation_id,
    metadata,
    id::text AS log_id
FROM (
    SELECT id, timestamp, service_name, level, message, correlation_id, metadata FROM logs
    UNION ALL
    SELECT id, timestamp, service_name, level, message, correlation_id, metadata FROM late_logs
) AS stored
-- Whoever sees this row is not held by policies: a restored view belongs to the wrong role, and shows nothing.
WHERE NOT EXISTS (SELECT FROM sql_readers WHERE role_name = '');

ALTER VIEW logfeed_sql.logs OWNER TO logfeed_sql;
GRANT USAGE ON SCHEMA logfeed_sql TO logfeed_sql;
GRANT SELECT ON logs, late_logs, sql_readers, sql_retention TO logfeed_sql;

-- The scope of whoever asks, and what query hides of what is past its age (store/tiers/hiding.py), for both tables.
DO $$
DECLARE
    rule constant text := $rule$
        (service_name = ANY ((SELECT names FROM sql_readers WHERE role_name = current_user)::text[])
            OR service_name ^@ ANY ((SELECT prefixes FROM sql_readers WHERE role_name = current_user)::text[]))
        AND service_name <> ALL ((SELECT excluded FROM sql_readers WHERE role_name = current_user)::text[])
        AND (timestamp >= coalesce(
                (SELECT date_trunc('hour', now(), 'UTC') - min(age) FROM sql_retention), timestamptz '-infinity')
            OR timestamp >= date_trunc('hour', now(), 'UTC') - (
                SELECT age FROM sql_retention AS c
                WHERE (service_name = ANY (c.names) OR service_name ^@ ANY (c.prefixes))
                    AND level BETWEEN c.level_min AND c.level_max
                ORDER BY place LIMIT 1))
        $rule$;
    rows text;
BEGIN
    FOREACH rows IN ARRAY ARRAY['logs', 'late_logs'] LOOP
        EXECUTE format('DROP POLICY IF EXISTS logfeed_sql ON %I', rows);
        EXECUTE format('CREATE POLICY logfeed_sql ON %I FOR SELECT TO logfeed_sql USING (%s)', rows, rule);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', rows);
    END LOOP;
END
$$;
