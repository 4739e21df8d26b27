"""Reads the JSON body of a request that changes something: bounded, JSON only, so that no form of another site is taken."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import msgspec
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from schemas.errors import InvalidInput
from search.params import ParameterError

BODY_BYTES_MAX: Final = 64 * 1024
_BODY_S_MAX: Final = 10.0
Body = TypeVar("Body", bound=BaseModel)


async def read_json(request: Request, model: type[Body]) -> Body:
    """The body as its model. Raises InvalidInput; of a field: ParameterError, which names it."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise InvalidInput("expected Content-Type: application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S_MAX):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise InvalidInput(f"expected a body of at most {BODY_BYTES_MAX} bytes")
    except TimeoutError as error:
        raise InvalidInput(f"the body did not arrive within {_BODY_S_MAX:g} s") from error
    except ClientDisconnect as error:
        raise InvalidInput("the body was cut off") from error
    try:
        content = msgspec.json.decode(bytes(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the body is no JSON: {error}") from error
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))[:100] or "body"
        raise ParameterError(field.encode("utf-8", "replace").decode(), first["msg"]) from error
