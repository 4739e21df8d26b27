"""Object storage: whole files under keys, in S3 or in a directory, and a bounded local cache of them.

`port.py` says what a store owes; `s3_store.py` and `local_store.py` are the two adapters, `factory.py` chooses one by its
URL; `cache.py` keeps copies on the local disk. Nothing here knows what is in an object.
"""
