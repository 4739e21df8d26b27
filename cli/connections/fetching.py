"""A text from a file, a web address or S3, whole and bounded. S3 is asked as `objects` says, with AWS's usual credentials."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from cli.connections.sources import is_address
from schemas.errors import InvalidInput, LogfeedError

TEXT_BYTES_MAX: Final = 1024 * 1024 * 1024
"""What a server takes at the very most (`connections.text_bytes_max`)."""
_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)


class TextUnavailable(LogfeedError):
    """A text cannot be read."""


async def fetch(place: str) -> bytes:
    """The text. Raises TextUnavailable."""
    try:
        if place.startswith("s3://"):
            return await _from_s3(place)
        if is_address(place):
            return await _from_web(place)
        return await asyncio.to_thread(_from_file, Path(place))
    except OSError as error:
        raise TextUnavailable(f"{place}: {error.strerror or error}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TextUnavailable(f"{shown(place)}: {str(error) or type(error).__name__}") from error


def _from_file(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(TEXT_BYTES_MAX + 1)
    _check_size(str(path), len(content))
    return content


async def _from_web(address: str) -> bytes:
    content = bytearray()
    async with httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=True) as client:
        async with client.stream("GET", address) as response:
            if not response.is_success:
                raise TextUnavailable(f"{shown(address)}: answered {response.status_code}")
            async for chunk in response.aiter_bytes():
                content += chunk
                _check_size(address, len(content))
    return bytes(content)


async def _from_s3(address: str) -> bytes:
    # Imported at need: only this reads settings, and has the libraries of object storage.
    from cli.settings import load_settings
    from store.objects.factory import make_object_store

    bucket, _, key = address.removeprefix("s3://").partition("/")
    settings = load_settings(None).objects
    store = make_object_store(type(settings).model_validate({**settings.model_dump(), "url": f"s3://{bucket}"}))
    try:
        size = await store.size(key)
        if size is None:
            raise TextUnavailable(f"{address}: there is no such object")
        _check_size(address, size)
        with tempfile.TemporaryDirectory(prefix="logfeed-connections-") as directory:
            file = Path(directory) / "text"
            await store.get(key, file)
            return await asyncio.to_thread(file.read_bytes)
    except (LogfeedError, ValueError) as error:
        if isinstance(error, TextUnavailable):
            raise
        raise TextUnavailable(f"{address}: {error}") from error
    finally:
        await store.close()


def _check_size(place: str, size: int) -> None:
    if size > TEXT_BYTES_MAX:
        raise TextUnavailable(f"{shown(place)}: is larger than {TEXT_BYTES_MAX} bytes")


def shown(place: str) -> str:
    """Without what may be secret in an address."""
    try:
        parts = urlsplit(place)
    except ValueError as error:
        raise InvalidInput(f"{place[:100]!r} is no address") from error
    if not is_address(place):
        return place
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
