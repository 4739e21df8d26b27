"""An answer as long as what it tells: sent piece by piece, and ended when its reader has gone, whatever was sent until then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from schemas.errors import LogfeedError


class LongAnswer(StreamingResponse):
    """One of them."""

    def __init__(
        self,
        pieces: Callable[[], AsyncGenerator[bytes, None]],
        stack: AsyncExitStack,
        *,
        media_type: str,
        headers: dict[str, str],
        cut: Callable[[Exception], None],
    ) -> None:
        """pieces: called once. stack: what the answer holds, freed at its end. cut: told of the error that ended it early."""
        super().__init__((), media_type=media_type, headers=headers)
        self._pieces = pieces
        self._stack = stack
        self._cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. Returning without the last message has the server end the connection."""
        async with self._stack:
            sending = asyncio.create_task(self._send(send), name="answer sends")
            hearing = asyncio.create_task(_gone(receive), name="answer hears")
            try:
                await asyncio.wait({sending, hearing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, hearing):
                    task.cancel()
                results = await asyncio.gather(sending, hearing, return_exceptions=True)
            for result in results:
                if isinstance(result, (LogfeedError, OSError)):
                    self._cut(result)
                elif isinstance(result, Exception):
                    raise result

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    """Wait for the reader to go."""
    while (await receive())["type"] != "http.disconnect":
        pass
