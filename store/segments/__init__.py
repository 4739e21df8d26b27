"""Segments: the rows of a closed chunk as Parquet files, written once, verified, asked in a process of its own.

    rows ── from_rows ──▶ writing ──▶ Parquet file + correlation filter ──▶ verification
                                            │                 │
                                     reading ⇄ reader     filters.may_hold
                                     (our process) (bounded process: DuckDB)

Knows no catalogue and no object storage: callers say which files there are (store/tiers). A segment's file never changes
under its name; what a file must hold to be that segment is its `SegmentInfo`.
"""
