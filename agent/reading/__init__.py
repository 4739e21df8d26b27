"""Lines of a file as they are asked for: from the end in blocks, filtered, followed. No HTTP, no event loop, but for
`pool.py`."""
