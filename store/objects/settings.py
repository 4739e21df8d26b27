"""Settings of object storage: where it is, how long it may take, how much of it is kept on the local disk.

Credentials are not here: AWS's usual variables of the environment have them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Self

from pydantic import Field, model_validator

from runtime.settings import Section
from store.objects.keys import check_prefix

_MIB: Final = 1024 * 1024
_S3: Final = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")
_FILE: Final = re.compile(r"file://(?P<path>/[^?#]*)")
_ENDPOINT: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+/?")


class ObjectSettings(Section):
    """Object storage and its local cache."""

    url: str | None = None
    """Where objects are: s3://bucket/prefix, or file:///directory. Default none: everything stays on the local disk."""

    endpoint: str | None = None
    """http(s)://host:port of an S3 server that is not AWS's; asked with the bucket in the path. http:// only here: there is
    no other way to unencrypted connections. Default: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else AWS itself."""

    region: str | None = Field(None, pattern=r"^[a-z0-9-]{1,40}$")
    """Region of the bucket. Default: AWS_REGION or AWS_DEFAULT_REGION, else us-east-1."""

    call_deadline_s: float = Field(60.0, gt=0, le=3600)
    """Seconds that one call may take with all its retries and its wait for a place. Default 60 s. Calls that move bytes may
    take longer by what `transfer_bytes_per_s_min` grants."""

    transfer_bytes_per_s_min: int = Field(_MIB, ge=1024)
    """Bytes per second below which moving an object counts as failed. Default 1 MiB/s: 1 GiB may take 17 minutes."""

    silence_s: float = Field(20.0, gt=0, le=600)
    """Seconds without a byte of an answer after which a request is tried again. Default 20 s: S3 answers in one. Sending a
    part counts as waiting, so it must be long enough for the parts of one object at `transfer_bytes_per_s_min`."""

    connect_timeout_s: float = Field(5.0, gt=0, le=60)
    """Seconds for a connection to come about. Default 5 s."""

    retries_max: int = Field(4, ge=0, le=20)
    """Times a request is repeated after a connection that broke, silence, 5xx, 408 or 429, at growing distances. Default 4."""

    transfers_max: int = Field(4, ge=1, le=64)
    """Objects that one process moves at once; others wait. Default 4: they fill a network. Each upload holds about
    `parts_at_once` + 3 parts in memory, each download 10 MiB."""

    part_bytes: int = Field(8 * _MIB, ge=5 * _MIB, le=512 * _MIB)
    """Bytes of one part of a large upload. Default 8 MiB; S3 wants at least 5 MiB. Objects that would need more than 10,000
    parts get larger ones."""

    parts_at_once: int = Field(2, ge=1, le=16)
    """Parts of one object that are sent at once. Default 2."""

    cache_dir: Path = Path("logfeed-data/object-cache")
    """Directory of the cache: copies of objects that were asked for. Each process that answers questions needs one of its own:
    a second one reads no files from object storage, and says so. It may be emptied while none runs. Default:
    <data_dir>/object-cache."""

    cache_free_bytes_min: int = Field(1024**3, ge=0)
    """Bytes that stay free on the cache's disk: past that copies give way to new ones though `cache_bytes_max` is not reached,
    and where none may, questions for further objects are refused. Default 1 GiB."""

    cache_bytes_max: int = Field(20 * 1024**3, ge=1)
    """Bytes of the cache. Default 20 GiB. Whole objects are kept, so it must hold those that one question needs at once."""

    cache_wait_s: float = Field(30.0, gt=0, le=600)
    """Seconds that a download waits for room while the cache is full of files in use. Default 30 s."""

    @model_validator(mode="after")
    def _places_are_places(self) -> Self:
        # Rules of the whole section: its errors do not show what was found, and an URL may hold a password.
        if self.url is not None and self.directory is None and not _is_bucket(self.url):
            raise ValueError("url: expected s3://bucket/prefix (letters, digits, . _ = - and /) or file:///directory")
        if self.endpoint is not None:
            check_endpoint(self.endpoint)
        return self

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        needed_s = self.parts_at_once * self.part_bytes / self.transfer_bytes_per_s_min
        if needed_s > self.silence_s:
            raise ValueError(
                f"silence_s ({self.silence_s:g}) must be at least part_bytes * parts_at_once / transfer_bytes_per_s_min"
                f" ({needed_s:g}): a part on its way would be taken for silence"
            )
        return self

    @property
    def bucket(self) -> tuple[str, str] | None:
        """(bucket, prefix without slashes at its ends) when the place is S3."""
        match = _S3.fullmatch(self.url or "")
        return (match["bucket"], (match["prefix"] or "").removesuffix("/")) if match else None

    @property
    def directory(self) -> Path | None:
        """The directory when the place is one."""
        match = _FILE.fullmatch(self.url or "")
        return Path(match["path"]) if match else None


def _is_bucket(url: str) -> bool:
    match = _S3.fullmatch(url)
    try:
        return match is not None and check_prefix((match["prefix"] or "").removesuffix("/")) is not None
    except ValueError:
        return False


def check_endpoint(endpoint: str) -> str:
    """The endpoint itself. ValueError when it is none; the text does not show it, since it may hold a password."""
    if not _ENDPOINT.fullmatch(endpoint):
        raise ValueError("endpoint: expected http://host:port or https://host:port, without user, path or question")
    return endpoint.removesuffix("/")
