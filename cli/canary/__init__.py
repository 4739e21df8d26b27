"""`logfeed canary`: numbered logs are sent, read back by pages and by a tail, and compared. oracle.py judges, probe.py asks."""
