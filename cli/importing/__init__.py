"""`logfeed import`: old log files into Logfeed, each line once, however often the import is interrupted.

Read in this order: `formats/` (what a line says), `records.py` (which bytes are one log), `batches.py` (which logs are one
request), `state.py` (what the server has acknowledged), `timeline.py` (what time a log gets), `run.py` (the import of one
file), `command.py` (the command). Everything but `run.py`, `sending.py` and `command.py` is free of network and clock.
"""
