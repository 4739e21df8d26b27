"""Elasticsearch's `_bulk`, and what its clients ask before they send. Documents are logs; nothing is indexed or updated."""
