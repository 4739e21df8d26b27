"""Following the broker as it grows: what tails, alerts and routes see before, or without, the database."""
