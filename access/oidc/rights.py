"""From claims to a name and to grants. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from access.oidc.settings import OidcSettings

NAME_CHARS_MAX: Final = 80
"""Room is left for what tells two of the same name apart."""

_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9._@+-]+")


def grants_of(claims: Mapping[str, Any], settings: OidcSettings) -> list[str]:
    """What somebody with these claims may, in order; empty: nothing."""
    groups = claim(claims, settings.groups_claim)
    found = set(settings.default_grants)
    for group in groups if isinstance(groups, list) else [groups]:
        if isinstance(group, str):
            found.update(settings.grants.get(group, ()))
    return sorted(found)


def name_of(claims: Mapping[str, Any], settings: OidcSettings) -> str:
    """What somebody is called, in the characters that names of users are made of."""
    found = claim(claims, settings.name_claim)
    text = found if isinstance(found, str) and found.strip() else str(claims["sub"])
    plain = unicodedata.normalize("NFKD", text[:1_000]).encode("ascii", "ignore").decode().lower()
    name = _NOT_IN_NAMES.sub("-", plain).strip("._@+-")[:NAME_CHARS_MAX]
    return name or "user"


def claim(claims: Mapping[str, Any], name: str) -> Any:  # any JSON value
    """A claim by its name, or else by a dotted way into it; None when there is none.

    An address that the provider has not verified says nothing: at some providers anybody can enter another's.
    """
    if name == "email" and claims.get("email_verified") is not True:
        return None
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found
