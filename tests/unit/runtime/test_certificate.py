"""The server's certificate: what is wrong with its files is said, a renewed one is shown, half of a renewal never is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from runtime.certificate import Certificate
from schemas.errors import ConfigurationError
from tests.certificates import Pair, make_pair


def missing_cert(pair: Pair, _: Path) -> None:
    pair.cert.unlink()


def missing_key(pair: Pair, _: Path) -> None:
    pair.key.unlink()


def unreadable(pair: Pair, _: Path) -> None:
    pair.cert.unlink()
    pair.cert.mkdir()


def no_pem(pair: Pair, _: Path) -> None:
    pair.cert.write_bytes(b"\x30\x82 this is no PEM")


def swapped(pair: Pair, _: Path) -> None:
    pair.key.write_bytes(pair.cert.read_bytes())


def of_another(pair: Pair, directory: Path) -> None:
    pair.key.write_bytes(make_pair(directory, "other").key.read_bytes())


def encrypted(pair: Pair, directory: Path) -> None:
    pair.key.write_bytes(make_pair(directory, "other", password=b"word").key.read_bytes())


def damaged_key(pair: Pair, _: Path) -> None:
    lines = pair.key.read_text().splitlines()
    pair.key.write_text("\n".join([lines[0], "AAAA", lines[-1]]))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (missing_cert, r"http\.tls_cert: \S+server\.pem cannot be read: No such file"),
        (missing_key, r"http\.tls_key: \S+server\.key cannot be read: No such file"),
        (unreadable, r"http\.tls_cert: \S+server\.pem cannot be read: Is a directory"),
        (no_pem, r"http\.tls_cert: \S+ has no certificate: expected PEM"),
        (swapped, r"http\.tls_key: \S+ has no private key: expected PEM"),
        (of_another, r"http\.tls_key: \S+server\.key is not the key of the certificate in \S+server\.pem"),
        (encrypted, r"http\.tls_key: \S+ is encrypted"),
        (damaged_key, r"cannot be used"),
    ],
)
def test_files_that_cannot_serve_are_refused_by_name(
    tmp_path: Path, spoil: Callable[[Pair, Path], None], says: str
) -> None:
    pair = make_pair(tmp_path)
    spoil(pair, tmp_path)
    with pytest.raises(ConfigurationError, match=says):
        Certificate(*pair)


@pytest.mark.parametrize(
    ("days", "says"), [(-1, "HAS EXPIRED"), (3, "expires soon"), (59, None), (100, "not valid yet")]
)
def test_a_certificate_outside_its_time_is_shown_and_said(tmp_path: Path, days: int, says: str | None) -> None:
    with capture_logs() as logs:
        Certificate(*make_pair(tmp_path, days=days))
    warnings = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert len(warnings) == (says is not None)
    assert says is None or says in warnings[0]


def test_a_renewed_certificate_is_shown_and_half_of_one_is_not(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    shown = Certificate(*pair)
    first = shown.shown()
    assert not shown.look()
    renewed = make_pair(tmp_path, "renewed")

    pair.cert.write_bytes(renewed.cert.read_bytes())
    with capture_logs() as logs:
        assert not shown.look()
        assert not shown.look()
    assert shown.shown() is first
    assert [entry["log_level"] for entry in logs] == ["error"], "said once"

    pair.key.write_bytes(renewed.key.read_bytes())
    assert shown.look()
    assert shown.shown() is not first

    pair.cert.unlink()
    assert not shown.look(), "files that are away for a moment change nothing"


def test_a_renewal_behind_symbolic_links_is_seen(tmp_path: Path) -> None:
    for each in ("one", "two"):
        (tmp_path / each).mkdir()
        make_pair(tmp_path / each)
    live = tmp_path / "live"
    live.symlink_to(tmp_path / "one")
    shown = Certificate(live / "server.pem", live / "server.key")
    live.unlink()
    live.symlink_to(tmp_path / "two")
    assert shown.look()
