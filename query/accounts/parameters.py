"""Parameters of the lists of keys and users, and permissions as texts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson

from access.errors import AccountError
from access.grants import Permission, check_grants, grant
from query.params import LIMIT_DEFAULT, LIST_MAX, Items, Parameter, Values
from schemas.accounts import Permissions
from search.params import ParameterError

_PART_CHARS_MAX: Final = 200
_NAME: Final = Parameter("name", "The name contains this text, letters in either case.", example="shop")
_LIMIT: Final = Parameter(
    "limit", "Most in the page.", {"type": "integer", "minimum": 1, "maximum": LIST_MAX, "default": LIMIT_DEFAULT}
)
_CURSOR: Final = Parameter("cursor", "`next_cursor` of a page of the same question.")
KEYS: Final = (
    Parameter(
        "name", "The name contains this text, letters in either case, or it is the key's prefix.", example="shop"
    ),
    Parameter("all", "Revoked and expired ones too.", {"type": "boolean", "default": False}),
    _LIMIT,
    _CURSOR,
)
USERS: Final = (_NAME, _LIMIT, _CURSOR)


@dataclass(frozen=True, slots=True)
class AccountQuestion:
    """Which keys or users."""

    part: str
    """Of names."""
    everything: bool
    limit: int
    token: str | None

    @property
    def canonical(self) -> str:
        """What stays the same along a walk."""
        return orjson.dumps([self.part, self.everything]).decode()


def parse_keys(items: Items) -> AccountQuestion:
    """Of `GET /api/v1/keys`. Raises ParameterError."""
    values = Values(items, KEYS)
    everything = values.one("all")
    if everything not in (None, "true", "false"):
        raise ParameterError("all", f"expected true or false, got {everything[:40]!r}")
    return _question(values, everything=everything == "true")


def parse_users(items: Items) -> AccountQuestion:
    """Of `GET /api/v1/users`. Raises ParameterError."""
    return _question(Values(items, USERS), everything=True)


def grants_of(permissions: Permissions) -> list[str]:
    """Permissions as they are stored. Raises ParameterError."""
    try:
        found = [
            grant(permission, services)
            for permission in Permission
            for services in permissions.get(permission.value, [])
        ]
        if not found:
            raise ParameterError("permissions", "expected at least one service for one of them: else it may nothing")
        return check_grants(found)
    except AccountError as error:
        raise ParameterError("permissions", str(error)) from error


def _question(values: Values, *, everything: bool) -> AccountQuestion:
    part = values.one("name") or ""
    if len(part) > _PART_CHARS_MAX or not part.isprintable():
        raise ParameterError("name", f"expected at most {_PART_CHARS_MAX} printable characters")
    limit = values.whole_number("limit", least=1, most=LIST_MAX, default=LIMIT_DEFAULT)
    return AccountQuestion(part, everything, limit, values.token())
