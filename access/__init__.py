"""Who asks, and what they may: the one place that decides (INV-5).

`authenticator.py` says who sent a request; `directory.py` holds what the database says of keys, users and sessions;
`accounts.py` changes it; `sessions.py` lets people in. Services get one `Authenticate` from whoever composes them.
"""
