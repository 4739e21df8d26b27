"""What may be set, and what a wrong setting says."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.settings import Section, load
from schemas.errors import ConfigurationError
from store.objects.factory import make_object_store
from store.objects.local_store import LocalObjectStore
from store.objects.s3_store import S3ObjectStore
from store.objects.settings import ObjectSettings


class Root(Section):
    """As the program composes it."""

    objects: ObjectSettings = ObjectSettings()
    """Object storage."""


def loaded(**settings: object) -> ObjectSettings:
    return load(
        Root, file=None, environment={}, flags={f"objects.{name}": value for name, value in settings.items()}
    ).objects


@pytest.mark.parametrize(
    ("url", "bucket"),
    [
        ("s3://logs", ("logs", "")),
        ("s3://logs/", ("logs", "")),
        ("s3://logs.of.all/tier/cold", ("logs.of.all", "tier/cold")),
        ("s3://logs/tier/", ("logs", "tier")),
    ],
)
def test_bucket_and_prefix_are_read_from_the_url(url: str, bucket: tuple[str, str]) -> None:
    settings = loaded(url=url)
    assert (settings.bucket, settings.directory) == (bucket, None)
    assert isinstance(make_object_store(settings, {}), S3ObjectStore)


def test_directory_is_read_from_the_url() -> None:
    settings = loaded(url="file:///var/lib/logfeed/objects")
    assert (settings.bucket, settings.directory) == (None, Path("/var/lib/logfeed/objects"))
    assert isinstance(make_object_store(settings, {}), LocalObjectStore)


@pytest.mark.parametrize(
    "url",
    [
        "logs",
        "s3://",
        "s3://B",
        "s3://logs/../other",
        "s3://logs//x",
        "s3://logs/a b",
        "s3://user:the-password@logs/x",
        "s3://logs?x=the-password",
        "http://logs/x",
        "file://relative",
        "gs://logs",
    ],
)
def test_other_urls_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="objects: url: expected s3://bucket/prefix") as raised:
        loaded(url=url)
    assert "the-password" not in str(raised.value)


@pytest.mark.parametrize(
    "endpoint", ["host:9000", "ftp://host", "http://user:the-password@host", "https://host/path", "http://host?x"]
)
def test_other_endpoints_are_refused_and_not_shown(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="endpoint: expected http://host:port or https://host:port") as raised:
        loaded(url="s3://logs", endpoint=endpoint)
    assert "the-password" not in str(raised.value)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9000", "https://s3.example.org/", "http://[::1]:9000"])
def test_endpoints_are_taken(endpoint: str) -> None:
    make_object_store(loaded(url="s3://logs", endpoint=endpoint), {})


def test_no_url_is_no_store() -> None:
    with pytest.raises(ConfigurationError, match=r"no object storage: set objects\.url"):
        make_object_store(loaded(), {})


def test_silence_must_outlast_a_part_on_its_way() -> None:
    with pytest.raises(ConfigurationError, match=r"silence_s \(20\) must be at least .* \(128\)"):
        loaded(part_bytes=64 * 1024 * 1024)
