"""PostgreSQL: pool, migrations, leases, the embedded server. The only importer of psycopg."""
