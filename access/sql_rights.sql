-- What PostgreSQL lets everybody do, and a reader must not: make temporary tables and large objects, write to the WAL, run code,
-- and take advisory locks, by one of which all writers could be stopped. The account that owns the tables keeps all of it.
DO $$
DECLARE
    owner constant regrole := (SELECT relowner FROM pg_class WHERE oid = 'logs'::regclass);
    what text;
BEGIN
    FOR what IN
        SELECT 'FUNCTION ' || oid::regprocedure FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace
            AND (proname ~ '^pg_(try_)?advisory_'
                OR proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_open', 'lo_put', 'lo_truncate', 'lo_truncate64',
                    'lo_unlink', 'lowrite', 'pg_logical_emit_message', 'pg_export_snapshot'))
            AND has_function_privilege('public', oid, 'EXECUTE')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON %s FROM PUBLIC', what);
        EXECUTE format('GRANT EXECUTE ON %s TO %s', what, owner);
    END LOOP;
    EXECUTE 'REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC';
    EXECUTE format('GRANT USAGE ON LANGUAGE plpgsql TO %s', owner);
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO %s', current_database(), owner);
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema());
END
$$;
