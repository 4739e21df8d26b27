"""Path parameters that are any text.

Starlette's `path` ends at a line end: where one is in the text there would be no such path, and not what is wrong with it.
"""

from __future__ import annotations

from typing import Final

from starlette.convertors import PathConvertor, register_url_convertor

_NAME: Final = "text"


class _Text(PathConvertor):
    regex = "(?s:.*)"


register_url_convertor(_NAME, _Text())


def any_text(parameter: str) -> str:
    """The part of a route's path that is this parameter, slashes and line ends too: as much as leaves what follows it."""
    return f"{{{parameter}:{_NAME}}}"
