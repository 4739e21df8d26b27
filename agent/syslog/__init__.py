"""Syslog, received: what cannot be read again goes to disk first, and from there the way of all lines.

`framing.py` cuts a connection's bytes into messages, `parse.py` reads one (both pure), `spool.py` keeps them on disk,
`listener.py` receives.
"""
