"""Lines of files to the server, each once.

Read in this order: `joining.py` (which bytes are one log), `encoding.py` (a log as it is sent), `identity.py` (which
file is the same one), `checkpoint.py` (what is remembered), `files.py` (which files there are, through rotation), `tailing.py`
(reading one on), `batches.py` (what goes into one request), `sending.py` (one request, until the server has it),
`shipper.py` (all of it in turn).

Each line is stored once since a request is written down, body and all, together with the places in the files that come
after it, before it is sent: one file, put in place in one step. Whoever comes back after a crash sends that very body
again under its key, which the server stores once, and reads on from those places. What is not written down was not sent.
"""
