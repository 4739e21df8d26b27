"""What kinds of lines there are: streaming template mining, patterns as text and as expressions, counts of them.

    message ── masks ──▶ tokens ── miner ──▶ template (id, text) ──▶ counts (minute, service, level, pattern)
                                                 └── expression ──▶ regular expression of package search

A *template* is a line with its variable parts as wildcards: `Connection from <ip> closed after <num> ms`. Its id is a hash
of this text, so that processes that never met agree on it. Pure: no clock, no input or output. docs/patterns.md is the
user's side.
"""
