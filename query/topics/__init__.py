"""Records of derived topics over HTTP: see docs/topics.md."""
