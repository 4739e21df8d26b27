"""Reads the JSON body of a request that changes something: into the model that says which field is wrong."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
from fastapi import Request
from pydantic import BaseModel, ValidationError

from runtime.json_body import json_body
from schemas.errors import InvalidInput
from search.params import ParameterError

BODY_BYTES_MAX: Final = 64 * 1024
Body = TypeVar("Body", bound=BaseModel)


async def read_json(request: Request, model: type[Body]) -> Body:
    """The body as its model. Raises InvalidInput; of a field: ParameterError, which names it."""
    body = await json_body(request, bytes_max=BODY_BYTES_MAX)
    try:
        content = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the body is no JSON: {error}") from error
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))[:100] or "body"
        raise ParameterError(field.encode("utf-8", "replace").decode(), first["msg"]) from error
