"""How fast is it, honestly: varied lines, everything on, ratios against a plain COPY of the same rows in the same run.

Each module does one thing. The load: `lines` (bodies that never repeat), `wire` (an HTTP connection), `generator` (a process),
`load` (that process under the harness). What is observed: `processes` (CPU and memory from /proc), `watch` (the store's own
figures). Sections, each with one `measure`: `floor`, `throughput`, `accept`, `wire_ratios` (with `wire_formats`), `single`,
`freshness`, `live` (with `tails`), `pages` (with `fill` and `questions`), `tiers`, `peers`. The outcome: `figures`, `goals`,
`report`, `plot`. Pure: `lines`, `quantiles`, `goals`, `report`, `plot`, `questions.questions`. It asserts no times: a slow
machine gets a report like any other.
"""
