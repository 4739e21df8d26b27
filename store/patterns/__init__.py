"""Patterns of lines in PostgreSQL: what the miner saves (`state.py`), and what people ask of it (`reading.py`)."""
