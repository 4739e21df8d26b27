"""One predicate tree: built from URL parameters or the query language, judged in memory or compiled to SQL.

    text ── language.parse ─────┐                          ┌── match.compile_match ── Callable[[LogView], bool]
    URL  ── params.from_params ─┼──▶ predicate.Predicate ──┼── sql_postgres.compile_postgres ── Sql
    code ── the node classes ───┘                          └── sql_duckdb.compile_duckdb ── Sql

Promise: the three compilers give the same answer for every predicate and every stored log. What could make engines
differ is defined here, once and for ever, and not left to any of them: letter case (letters.py), regular expressions
(regex.py), numbers (numbers.py), missing values (every compiled leaf is true or false, never unknown).

Pure: no clock, no input or output, no state beyond tables built at import. docs/query-language.md is the user's side.
"""
