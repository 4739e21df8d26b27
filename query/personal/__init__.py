"""Bookmarks and saved views over HTTP."""
