"""Reads small JSON bodies, bounded in bytes and time. Other content types are refused: no form of another site is taken."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect, Request

from schemas.errors import InvalidInput

_BODY_S_MAX: Final = 10.0


async def json_body(request: Request, *, bytes_max: int) -> bytes:
    """The body of a request that says it is JSON; nobody has looked into it. Raises InvalidInput."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise InvalidInput("expected Content-Type: application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S_MAX):
            async for chunk in request.stream():
                body += chunk
                if len(body) > bytes_max:
                    raise InvalidInput(f"expected a body of at most {bytes_max} bytes")
    except TimeoutError as error:
        raise InvalidInput(f"the body did not arrive within {_BODY_S_MAX:g} s") from error
    except ClientDisconnect as error:
        raise InvalidInput("the body was cut off") from error
    return bytes(body)
