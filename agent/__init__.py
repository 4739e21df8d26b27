"""The agent: what runs on a host beside programs that write files.

Read in this order: `roots.py` (which files there are, and nothing else), `reading/` (lines of one, from its end, as they
are asked for), `api.py` (asked for over HTTP), `shipping/` (lines to the server, each once), `syslog/` (what is received
instead of read), `heartbeat.py` (where the server finds this host), `main.py` (all of them together).

It speaks HTTP with the server and knows nothing of brokers, databases and services.
"""
