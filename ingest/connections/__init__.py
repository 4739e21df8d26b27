"""Texts of connections, taken in: cut into chunks of logs that go the way of every log, each line once."""
