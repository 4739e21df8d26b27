"""Experiments: what runs, how it stands, its logs, and every change as it comes."""
