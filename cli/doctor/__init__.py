"""`logfeed doctor`: looking.py looks at a deployment and changes nothing, judging.py says what it means."""
