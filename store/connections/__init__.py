"""Connections in the database: what was put of them, how far their texts are stored, figures of their lines."""
