"""The services that the asking user may read, as the server writes them into a question. Pure.

`{"all": true}`, or `{"names": ["shop"], "prefixes": ["mail/"]}`; `"excluded": ["logfeed/audit"]` beside either.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from agent.errors import QuestionInvalid
from schemas.scope import ServiceScope

SCOPE_CHARS_MAX: Final = 64 * 1024
_Services = Annotated[frozenset[Annotated[str, msgspec.Meta(max_length=200)]], msgspec.Meta(max_length=2_000)]


class _Scope(msgspec.Struct, forbid_unknown_fields=True):
    all: bool = False
    names: _Services = frozenset()
    prefixes: _Services = frozenset()
    excluded: _Services = frozenset()


_decoder = msgspec.json.Decoder(_Scope)


def read_scope(text: str | None) -> ServiceScope:
    """Raises QuestionInvalid, also where there is none: nobody reads without one."""
    if text is None:
        raise QuestionInvalid("scope", 'expected the services that may be read, such as {"names": ["shop"]}')
    if len(text) > SCOPE_CHARS_MAX:
        raise QuestionInvalid("scope", f"expected at most {SCOPE_CHARS_MAX} characters")
    try:
        scope = _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise QuestionInvalid("scope", f"is no scope: {error}") from error
    return ServiceScope(scope.all, scope.names, scope.prefixes, scope.excluded)
