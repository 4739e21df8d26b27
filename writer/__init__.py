"""Reads frames from the broker and stores their logs exactly once."""
