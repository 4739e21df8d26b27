"""The open lake: segments as a table of Apache Iceberg, for engines that are not ours (Spark, Trino, DuckDB, pyiceberg).

    catalogue ── contents ──▶ segments ── data_files ──▶ entries ── publishing ──▶ snapshot ◀── catalog ── whoever asks

Metadata alone is written: files are entered where they lie, as they are, and none is opened for it, since the catalogue
knows their figures. All of it can be made again from the catalogue at any time, so it is nobody's truth but the readers'.
Only this package imports pyiceberg and SQLAlchemy, which are an extra (`lake`); settings, contents and locations need neither.
"""
