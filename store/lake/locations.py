"""Where the files of segments are, in the words of other engines: URLs. Pure.

A URL is a directory's and a name, nothing escaped: engines do not agree on what escapes mean, so that what would need them is
refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.errors import ConfigurationError
from store.lake.settings import LakeSettings
from store.objects.settings import ObjectSettings
from store.tiers.places import key_of
from store.tiers.segments import Segment, Tier

_PLAIN: Final = re.compile(r"/[^?#%\s]*")


@dataclass(frozen=True, slots=True)
class Locations:
    """Of one lake."""

    warehouse: str
    """URL below which metadata is written."""
    warm: str
    """URL of the directory of segments, as readers see it."""
    cold: str | None
    """URL of the object storage; None: there is none."""
    directory: Path
    """The directory of segments, as this process sees it."""

    @classmethod
    def of(cls, settings: LakeSettings, objects: ObjectSettings, directory: Path) -> Locations:
        """directory: of segments. Raises ConfigurationError for a directory whose name would need escapes."""
        cold = None if objects.url is None else objects.url.rstrip("/")
        directory = directory.absolute()
        beside = f"{cold}/lake" if cold is not None else _url(directory.parent / "lake", "lake.warehouse")
        return cls(
            warehouse=settings.warehouse or beside,
            warm=settings.segments or _url(directory, "lake.segments"),
            cold=cold,
            directory=directory,
        )

    def url_of(self, segment: Segment) -> str:
        """Where readers get the segment's file. Raises ConfigurationError for a cold one without object storage."""
        if segment.tier is Tier.WARM:
            return f"{self.warm}/{segment.name}"
        if self.cold is None:
            raise ConfigurationError(
                f"segment {segment.name} is in object storage, and objects.url names none (LOGFEED_OBJECTS__URL)"
            )
        return f"{self.cold}/{key_of(segment)}"


def _url(directory: Path, setting: str) -> str:
    if not _PLAIN.fullmatch(str(directory)):
        raise ConfigurationError(
            f"{directory} cannot stand in a URL as it is: choose a path without spaces, ?, # and %, or set {setting}"
        )
    return f"file://{directory}"
