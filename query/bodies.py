"""Reads small JSON bodies, with limits of their own. Other content types are refused: no form of another site is taken."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import msgspec
from fastapi import Request

from schemas.errors import InvalidInput

BODY_S_MAX: Final = 10.0
T = TypeVar("T")


async def read_json(request: Request, decoder: msgspec.json.Decoder[T], *, bytes_max: int, expected: str) -> T:
    """The body. expected: what it is like, for who sent another. Raises InvalidInput, which tells nothing of what was found: it
    may be a secret."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise InvalidInput("expected Content-Type: application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S_MAX):
            async for chunk in request.stream():
                body += chunk
                if len(body) > bytes_max:
                    raise InvalidInput(f"expected a body of at most {bytes_max} bytes")
    except TimeoutError as error:
        raise InvalidInput(f"the body did not arrive within {BODY_S_MAX:g} s") from error
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"expected {expected}") from error
