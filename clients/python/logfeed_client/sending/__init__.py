"""Sends a program's logs: a bounded queue, batches under keys, a spool for when the server is away."""
