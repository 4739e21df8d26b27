"""Tails: logs as they come, to whoever keeps a connection open."""
