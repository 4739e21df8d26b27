"""Keys and users over HTTP."""
