"""`logfeed export`: every log of a range into a file or a pipe, page after page, with the memory of one page.

    command ── run ── pages of the API ──▶ lines (NDJSON, CSV) ──▶ output (plain, gzip, zstd; file or pipe)
                                      └──▶ store.export_file (Parquet) ──▶ file or pipe

An export is a walk over pages, so that access and all tiers hold as for any question; it shows each log that was visible when
it began exactly once. A file bears its name once it is whole.
"""
