"""The command `logfeed mcp`."""

from __future__ import annotations

import asyncio
import os
import sys

from cli.alert_client import KeyOption, UrlOption
from cli.first_keys import FirstKey, api_key_for
from cli.http_client import URL_DEFAULT, check_url
from schemas.errors import ConfigurationError


def mcp(url: UrlOption = URL_DEFAULT, api_key: KeyOption = None) -> None:
    """Give a language model tools that search logs: a server of the Model Context Protocol on standard input and output.

    Programs that talk to models start it. It asks the server with your key, so models are shown what you may read and
    nothing else; every tool only reads.

    [bold]Examples[/bold]
      LOGFEED_URL=https://logs.example LOGFEED_API_KEY=lf_… logfeed mcp
    """
    address = check_url(url)
    try:
        from cli.mcp.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise ConfigurationError(
            "`logfeed mcp` needs the MCP SDK, which is not installed: `make install-mcp`, or pip install 'logfeed[mcp]'"
        ) from error
    key = api_key or api_key_for(address, FirstKey.ADMIN, os.environ)
    asyncio.run(serve(address, key, ready=lambda: print(f"logfeed mcp asks {address}", file=sys.stderr)))
