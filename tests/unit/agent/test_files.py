"""Which files are read on where folders, names, archives and clocks are not as they should be."""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from agent.metrics import LAG_BYTES, UNREADABLE
from agent.roots import Root
from tests.unit.agent.shipping_host import SECOND_US, Host, numbered


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def zstd(text: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(text)


def test_a_removed_file_is_closed_also_beside_a_name_that_is_no_text(host: Host) -> None:
    (Path(os.fsdecode(os.fsencode(host.folder) + b"/\xff.log"))).write_text("x\n")
    host.append("a.log", "one")
    host.settle(5)
    (host.folder / "a.log").unlink()
    host.settle(10)
    assert [each.descriptor for each in host.files.files] == [-1]
    host.has_each_once(["one"])


def test_files_of_a_folder_that_cannot_be_listed_stay_and_others_are_seen_to_go(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    (host.folder / "closed").mkdir()
    inode = (host.folder / "closed").stat().st_ino
    host.append("a.log", "one")
    host.append("closed/b.log", "two")
    host.settle(5)
    listdir = os.listdir

    def refusing(folder: int) -> list[str]:
        if os.fstat(folder).st_ino == inode:
            raise PermissionError(13, "Permission denied")
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refusing)
    (host.folder / "a.log").unlink()
    host.settle(10)
    assert {each.place.name: each.is_gone for each in host.files.files} == {"a.log": True, "closed/b.log": False}
    host.append("closed/b.log", "three")
    host.settle(5)
    host.has_each_once(["one", "two", "three"])


@pytest.mark.parametrize(("end", "pack"), [("gz", gzip.compress), ("zst", zstd)])
def test_an_archive_that_is_seen_before_its_first_byte_is_read_as_what_it_becomes(
    host: Host, end: str, pack: Callable[[bytes], bytes]
) -> None:
    host.append("a.log", *numbered(0, 30))
    host.settle(5)
    (host.folder / "a.log").rename(host.folder / "a.log.1")
    archive = host.folder / f"a.log.1.{end}"
    archive.touch()
    host.settle(5)
    host.append("a.log.1", *numbered(30, 40))
    archive.write_bytes(pack((host.folder / "a.log.1").read_bytes()))
    (host.folder / "a.log.1").unlink()
    host.settle(10)
    host.has_each_once(numbered(0, 40))


@pytest.mark.parametrize(("end", "pack"), [("gz", gzip.compress), ("zst", zstd)])
def test_an_archive_that_is_still_written_is_sent_to_its_last_whole_line_and_then_on(
    host: Host, end: str, pack: Callable[[bytes], bytes]
) -> None:
    host.append("a.log", "now")
    host.settle(1)
    lines = [f"{number} {random.Random(number).randbytes(30).hex()}" for number in range(20_000)]
    text = "".join(f"{line}\n" for line in lines).encode()
    packed = pack(text)
    archive = host.folder / f"a.log.1.{end}"

    def write(content: bytes, ago_s: int = 0) -> None:
        archive.write_bytes(content)
        os.utime(archive, (host.now_us / 1e6 - ago_s, host.now_us / 1e6 - ago_s))

    half = packed[: len(packed) // 2]
    write(half)
    host.settle(10)
    readable = zstandard.ZstdDecompressor().stream_reader(half).read(len(text)) if end == "zst" else gzip_prefix(half)
    assert len(host.messages()) - 1 == readable.count(b"\n") > 5_000
    host.start()
    host.settle(10)
    write(packed)
    host.settle(20)
    host.has_each_once(["now", *lines])


def gzip_prefix(packed: bytes) -> bytes:
    import zlib

    return zlib.decompressobj(wbits=31).decompress(packed)


def test_an_archive_of_a_time_when_nobody_looked_is_read_although_the_clock_was_set_back(host: Host) -> None:
    host.append("a.log", "before")
    host.settle(5)
    host.now_us -= 3600 * SECOND_US
    host.append("b.log", "meanwhile")
    host.pack("b.log", "b.log.1.gz")
    host.start()
    host.settle(5)
    host.has_each_once(["before", "meanwhile"])


def test_what_waits_is_counted_also_while_nothing_is_read(host: Host) -> None:
    host.append("a.log", "one")
    host.settle(5)
    assert LAG_BYTES._value.get() == 0
    host.append("a.log", "two", "three")
    host.look()
    assert LAG_BYTES._value.get() == len("two\nthree\n")


def test_a_file_that_this_account_may_not_open_is_said_and_counted(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.append("a.log", "one")
    opened = os.open

    def refusing(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if path == "a.log":
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refusing)
        host.look()
        assert UNREADABLE._value.get() == 1
        assert Root("app", host.folder, "shop").why_not("a.log") == "Permission denied: this account may not read it"
    host.settle(5)
    assert UNREADABLE._value.get() == 0
    host.has_each_once(["one"])
