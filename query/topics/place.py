"""Where a reader of a topic stands, as text: `after`. Pure.

`0:1250,1:980`: partition and the offset that comes next. What is not named begins with the oldest record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from search.params import ParameterError

NOW: Final = "now"
"""`after` that begins with what comes from now on."""
PARTITIONS_MAX: Final = 1_024
_PLACE: Final = re.compile(r"[0-9]{1,4}:[0-9]{1,18}(,[0-9]{1,4}:[0-9]{1,18})*", re.ASCII)


def place_text(positions: Mapping[int, int]) -> str:
    """The text of these positions; '' where there are none."""
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(positions.items()))


def parse_place(text: str) -> dict[int, int]:
    """partition -> offset that comes next. Raises ParameterError."""
    if not text:
        return {}
    pairs = text.split(",", PARTITIONS_MAX)
    if not _PLACE.fullmatch(text) or len(pairs) > PARTITIONS_MAX:
        raise ParameterError("after", f"expected `next` of an answer, or {NOW}, got {text[:100]!r}")
    found = {}
    for pair in pairs:
        partition, _, offset = pair.partition(":")
        if int(partition) in found:
            raise ParameterError("after", f"partition {int(partition)} stands there twice")
        found[int(partition)] = int(offset)
    return found
