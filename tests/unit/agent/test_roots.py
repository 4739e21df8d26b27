"""Only what lies under a root and fits its patterns is a file, whatever names and links say."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from agent.errors import NoSuchFile
from agent.globs import compile_globs
from agent.roots import Found, Root, Unlisted
from agent.rotation import family_of, is_rotated


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "logs"
    (inside / "deep" / "er").mkdir(parents=True)
    (inside / "a.log").write_text("a\n")
    (inside / "deep" / "er" / "b.log").write_text("b\n")
    (inside / "notes.txt").write_text("no log\n")
    (tmp_path / "secret.log").write_text("secret\n")
    return inside


def root_of(folder: Path, **options: tuple[str, ...]) -> Root:
    return Root("logs", folder, "shop", options.get("include", ("**/*.log",)), options.get("exclude", ()))


def read(root: Root, name: str) -> bytes:
    descriptor = root.open(name)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def refused(root: Root, name: str) -> bool:
    try:
        os.close(root.open(name))
    except NoSuchFile:
        return True
    return False


def names(root: Root) -> list[str]:
    return [found.name for found in root.walk(entries_max=100) if isinstance(found, Found)]


def test_files_under_the_root_are_read_and_listed_in_order(folder: Path) -> None:
    root = root_of(folder)
    assert read(root, "a.log") == b"a\n"
    assert read(root, "deep/er/b.log") == b"b\n"
    assert names(root) == ["a.log", "deep/er/b.log"]


@pytest.mark.parametrize(
    "name",
    [
        *("../secret.log", "deep/../../secret.log", "deep/../a.log", "./a.log", "/etc/passwd", "//a.log", "a.log/", ""),
        *("..", ".", "deep//er/b.log", "%2e%2e/secret.log", "..%2fsecret.log", "a.log\0.log", "notes.txt", "deep"),
        *("a.log/b.log", "x" * 5_000 + ".log", "\udcff.log", "nowhere.log"),
    ],
)
def test_every_other_name_is_as_if_it_were_not_there(folder: Path, name: str) -> None:
    assert refused(root_of(folder), name)


def test_links_within_the_root_are_followed_and_others_lead_nowhere(folder: Path, tmp_path: Path) -> None:
    (folder / "current.log").symlink_to("deep/er/b.log")
    (folder / "deep" / "up.log").symlink_to("../a.log")
    (folder / "absolute.log").symlink_to(folder / "a.log")
    (folder / "out.log").symlink_to("../secret.log")
    (folder / "far.log").symlink_to(tmp_path / "secret.log")
    (folder / "loop.log").symlink_to("loop.log")
    (folder / "text.log").symlink_to("notes.txt")
    (folder / "gone.log").symlink_to("nothing")
    (folder / "outside").symlink_to(tmp_path)
    (folder / "inside").symlink_to("deep")
    root = root_of(folder)
    assert read(root, "current.log") == b"b\n"
    assert read(root, "deep/up.log") == b"a\n"
    assert read(root, "absolute.log") == b"a\n"
    assert read(root, "inside/er/b.log") == b"b\n"
    for name in ("out.log", "far.log", "loop.log", "text.log", "gone.log", "outside/secret.log"):
        assert refused(root, name), name
    assert names(root) == ["a.log", "absolute.log", "current.log", "deep/er/b.log", "deep/up.log"]


def test_a_name_that_becomes_a_link_out_after_it_was_listed_is_refused(folder: Path) -> None:
    root = root_of(folder)
    assert "deep/er/b.log" in names(root)
    (folder / "deep" / "er" / "b.log").unlink()
    (folder / "deep" / "er").rmdir()
    (folder / "deep" / "er").symlink_to(folder.parent)
    (folder.parent / "b.log").write_text("secret\n")
    assert refused(root, "deep/er/b.log")


def test_pipes_sockets_and_devices_are_no_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "pipe.log")
    monkeypatch.chdir(folder)  # a socket's address is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.log")
        (folder / "zero.log").symlink_to("/dev/zero")
        root = root_of(folder)
        for name in ("pipe.log", "socket.log", "zero.log"):
            assert refused(root, name), name
        assert names(root) == ["a.log", "deep/er/b.log"]


def test_a_root_is_closed_to_what_it_excludes(folder: Path) -> None:
    (folder / "link.log").symlink_to("deep/er/b.log")
    root = root_of(folder, exclude=("deep/**",))
    assert names(root) == ["a.log"]
    assert refused(root, "deep/er/b.log")
    assert refused(root, "link.log")


def test_a_folder_that_is_not_there_is_said_and_a_large_one_is_cut(folder: Path) -> None:
    assert [found.text for found in root_of(folder / "none").walk(entries_max=9) if isinstance(found, Unlisted)] == [
        "logs: No such file or directory"
    ]
    found = list(root_of(folder).walk(entries_max=2))
    assert isinstance(found[-1], Unlisted)
    assert len(found) == 2


def test_names_that_are_no_text_are_said_and_left_out(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff.log"))).write_text("x\n")
    root = root_of(folder)
    assert names(root) == ["a.log", "deep/er/b.log"]
    assert any(isinstance(found, Unlisted) and "no UTF-8" in found.text for found in root.walk(entries_max=100))


@pytest.mark.parametrize(
    ("pattern", "fits", "others"),
    [
        ("*.log", ["a.log", ".log"], ["a/b.log", "a.log.1", "alog"]),
        ("**/*.log", ["a.log", "a/b.log", "a/b/c.log"], ["a.logs"]),
        ("**", ["a", "a/b"], []),
        ("deep/**", ["deep/a", "deep/b/c"], ["deep", "a/deep/b"]),
        ("a?.log", ["ab.log"], ["a.log", "a/.log"]),
        ("a.(log)", ["a.(log)"], ["a.log"]),
    ],
)
def test_patterns_mean_what_they_say(pattern: str, fits: list[str], others: list[str]) -> None:
    matches = compile_globs([pattern]).fullmatch
    assert [name for name in fits + others if matches(name)] == fits


def test_no_pattern_permits_nothing() -> None:
    assert not compile_globs([]).fullmatch("")


@pytest.mark.parametrize(
    "name",
    [
        *("app.log", "app.log.1", "app.log.12.gz", "app.log-20261126", "app.log-20261126.gz", "app.log-2026-11-26.zst"),
        *("app.log.2026-11-26", "app.log-20261126-1795000000", "app.log.old", "app.log~", "app-2026-11-26.log"),
        *("app-20261126.log.gz", "app.log.2026-11-26_12-00-00.gz"),
    ],
)
def test_files_of_one_log_are_one_family(name: str) -> None:
    assert family_of(name) == "app.log"
    assert is_rotated(name) == (name not in ("app.log", "app-2026-11-26.log"))


def test_other_logs_are_other_families() -> None:
    assert len({family_of(name) for name in ("app.log", "app2.log", "a/app.log", "app.err", "app-web.log")}) == 5
