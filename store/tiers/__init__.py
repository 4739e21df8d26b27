"""Tiers: which of the rows' homes is asked, and how rows move from tables into segments and on to object storage."""
