"""The whole result of a question as one file, over HTTP."""
