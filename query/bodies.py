"""Reads small JSON bodies, with limits of their own, into the types that they are."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from fastapi import Request

from runtime.json_body import json_body
from schemas.errors import InvalidInput

T = TypeVar("T")


async def read_json(request: Request, decoder: msgspec.json.Decoder[T], *, bytes_max: int, expected: str) -> T:
    """The body. expected: what it is like, for who sent another. Raises InvalidInput, which tells nothing of what was found: it
    may be a secret."""
    body = await json_body(request, bytes_max=bytes_max)
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"expected {expected}") from error
