"""`logfeed mcp`: logs for language models, by the Model Context Protocol over standard input and output. See docs/mcp.md.

`arguments.py` says what each tool takes, `tools.py` what it asks the server, `shown.py` how much of the answer a model sees;
`server.py` alone imports the SDK, which is an extra (`make install-mcp`).
"""
