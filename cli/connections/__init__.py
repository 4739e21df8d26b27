"""`logfeed import-connections`: the logs of connections, from files, web addresses or S3."""
