"""Routes: which logs go into which derived topics, and the role that puts them there.

`table.py` decides, `role.py` follows the broker and publishes, `state.py` keeps how far it came.
"""
