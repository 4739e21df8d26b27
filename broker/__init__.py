"""The log between ingest and its readers: one port (`port.py`), Kafka and a durable queue in PostgreSQL behind it."""
