"""The protocol: tools over standard input and output, by the official SDK, the only importer of it.

Standard output is the protocol's alone. A call that fails is an answer that says why, which a model can do something about.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

from mcp import types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server as ProtocolServer
from mcp.server.stdio import stdio_server

from cli.http_client import new_client
from cli.mcp.arguments import schema_of
from cli.mcp.tools import INSTRUCTIONS, TOOLS, Server, call, told_of
from runtime.clock import SystemClock
from schemas.errors import LogfeedError

_READS: Final = types.ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
_Context = ServerRequestContext[Any]
"""Any: nothing is kept for a connection."""


async def serve(url: str, api_key: str | None, *, ready: Callable[[], None]) -> None:
    """Answer until standard input ends. url: of the Logfeed server. ready: called once, before the first message is read."""
    listed = types.ListToolsResult(
        tools=[
            types.Tool(
                name=tool.name,
                title=tool.title,
                description=tool.description,
                input_schema=schema_of(tool.arguments),
                annotations=_READS,
            )
            for tool in TOOLS.values()
        ]
    )
    async with new_client(url, api_key=api_key) as client:
        logfeed = Server(client, SystemClock())

        async def list_tools(_: _Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
            return listed

        async def call_tool(_: _Context, asked: types.CallToolRequestParams) -> types.CallToolResult:
            arguments = asked.arguments or {}
            try:
                text, is_error = await call(TOOLS, logfeed, asked.name, arguments), False
            except LogfeedError as error:
                text, is_error = told_of(error, arguments), True
            return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=is_error)

        protocol = ProtocolServer[Any](
            "logfeed",
            version=version("logfeed"),
            title="Logfeed",
            instructions=INSTRUCTIONS,
            on_list_tools=list_tools,
            on_call_tool=call_tool,
        )
        async with stdio_server() as (incoming, outgoing):
            ready()
            await protocol.run(incoming, outgoing, protocol.create_initialization_options())
