"""A spool keeps each line once, in order, through every death: torn lines, halves, full disks, two processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logfeed_client.sending import spool as module
from logfeed_client.sending.batch import Batch
from logfeed_client.sending.spool import Spool, SpoolError, parse_name, whole_lines


def claimed(base: Path, **options: Any) -> Spool:
    """One directory of the base."""
    found = Spool.claim(base, **{"bytes_max": 10_000, "batch_logs": 10, "batch_bytes": 1_000, **options})
    assert found is not None
    return found


def lines(first: int, count: int) -> list[bytes]:
    return [b'{"n":%d}\n' % number for number in range(first, first + count)]


def drained(spool: Spool) -> Iterator[Batch]:
    while (batch := spool.oldest()) is not None:
        yield batch
        spool.done(batch)


def content(spool: Spool) -> bytes:
    return b"".join(batch.body for batch in drained(spool))


def test_lines_come_back_in_order_in_batches_within_their_limits(tmp_path: Path) -> None:
    spool = claimed(tmp_path / "spool")
    for first in range(0, 95, 7):
        assert spool.append(lines(first, 7)) == 7
    batches = list(drained(spool))
    assert b"".join(batch.body for batch in batches) == b"".join(lines(0, 98))
    assert [batch.logs for batch in batches] == [10] * 9 + [8]
    assert len({batch.key for batch in batches}) == len(batches)
    assert (len(spool), spool.bytes, spool.oldest()) == (0, 0, None)


def test_batches_are_bounded_in_bytes_and_a_longer_line_is_one_by_itself(tmp_path: Path) -> None:
    spool = claimed(tmp_path)
    long, short = b"x" * 2_000 + b"\n", b"y" * 600 + b"\n"
    assert spool.append([short, long, short, short]) == 4
    assert [batch.body for batch in drained(spool)] == [short, long, short, short]


def test_what_a_dead_process_left_comes_first_with_its_keys(tmp_path: Path) -> None:
    spool = claimed(tmp_path)
    spool.append(lines(0, 15))
    tried = spool.oldest()
    spool.put(Batch.of(lines(15, 5)))
    spool.append(lines(20, 3))
    spool.forget()  # its process is gone
    again = claimed(tmp_path)
    assert again.directory == spool.directory
    assert again.oldest() == tried
    again.append(lines(23, 2))
    assert content(again) == b"".join(lines(0, 25))


@given(cut=st.integers(0, 60))
@settings(deadline=None, max_examples=25)
def test_a_line_that_was_cut_off_is_none_and_the_others_stay(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    base = tmp_path_factory.mktemp("spool")
    spool = claimed(base)
    spool.append(lines(0, 4))
    spool.forget()
    (path,) = base.glob("0/*.ndjson")
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole))])
    again = claimed(base)
    again.append(lines(9, 1))
    assert content(again) == whole_lines(whole[:cut]) + lines(9, 1)[0]


@given(content=st.binary(max_size=200))
@settings(max_examples=40, deadline=None)
def test_whole_lines_are_everything_to_the_last_line_end(content: bytes) -> None:
    found = whole_lines(content)
    assert content.startswith(found)
    assert b"\n" not in content[len(found) :]
    assert found == b"" or found.endswith(b"\n")


@pytest.mark.parametrize("kept", ["both", "whole and first", "whole", "halves"])
def test_halves_come_instead_of_the_whole_wherever_a_process_died(tmp_path: Path, kept: str) -> None:
    """Halves are tried only after the whole is gone: so who finds both has tried neither half."""
    spool = claimed(tmp_path)
    spool.append(lines(0, 10))
    spool.append(lines(10, 1))
    whole = spool.oldest()
    assert whole is not None
    (path,) = tmp_path.glob(f"0/*{whole.key}.ndjson")
    copy = shutil.copy(path, tmp_path / "copy")
    halves = whole.halves()
    assert halves is not None
    spool.split(whole, halves)
    assert spool.oldest() == halves[0]
    spool.forget()
    if kept != "halves":
        shutil.copy(copy, path)
    for half in halves[{"both": 2, "whole and first": 1, "whole": 0, "halves": 2}[kept] :]:
        (half_path,) = tmp_path.glob(f"0/*-{half.key}.ndjson")
        half_path.unlink()
    again = claimed(tmp_path)
    assert again.oldest() == (halves[0] if kept == "halves" else whole)
    assert content(again) == b"".join(lines(0, 11))


def test_halves_of_halves_keep_their_place(tmp_path: Path) -> None:
    spool = claimed(tmp_path)
    spool.append(lines(0, 14))
    for _ in range(3):
        oldest = spool.oldest()
        assert oldest is not None
        halves = oldest.halves()
        assert halves is not None
        spool.split(oldest, halves)
    spool.forget()
    again = claimed(tmp_path)
    assert content(again) == b"".join(lines(0, 14))


def test_it_is_bounded_and_has_room_again_when_something_went(tmp_path: Path) -> None:
    spool = claimed(tmp_path, bytes_max=100)
    assert spool.append(lines(0, 30)) == 12  # 10 of 8 bytes, 2 of 9
    assert spool.bytes == 98
    assert spool.is_full()
    assert not spool.put(Batch.of(lines(0, 1)))
    first = spool.oldest()
    assert first is not None
    spool.done(first)
    assert not spool.is_full()
    assert spool.append(lines(12, 3)) == 3
    assert content(spool) == b"".join(lines(10, 5))


def test_two_processes_never_share_a_directory_and_take_over_what_is_left(tmp_path: Path) -> None:
    first, second = claimed(tmp_path), claimed(tmp_path)
    assert first.directory != second.directory
    second.append(lines(5, 3))
    assert _left_by(tmp_path, first) is None, "its process lives"
    second.forget()
    left = _left_by(tmp_path, first)
    assert left is not None
    assert content(left) == b"".join(lines(5, 3))
    left.close()
    assert _left_by(tmp_path, first) is None, "nothing is left"


def _left_by(base: Path, own: Spool) -> Spool | None:
    return Spool.claim(base, bytes_max=10_000, batch_logs=10, batch_bytes=1_000, left_by_others=own.directory)


def test_another_process_holds_its_directory_until_it_dies(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from logfeed_client.sending.spool import Spool\n"
        "spool = Spool.claim(Path(sys.argv[1]), bytes_max=10_000, batch_logs=10, batch_bytes=1_000)\n"
        "spool.append([b'1\\n']); print(spool.directory.name, flush=True); sys.stdin.read()"
    )
    client = Path(module.__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(client)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        assert claimed(tmp_path).directory.name == "1"
    finally:
        process.kill()
        process.communicate()
    assert content(claimed(tmp_path)) == b"1\n"


def test_a_half_written_batch_that_nobody_tried_is_none(tmp_path: Path) -> None:
    claimed(tmp_path).forget()
    (tmp_path / "0" / f"000000000001-{'a' * 32}.part").write_bytes(b"1\n2")
    (tmp_path / "0" / "notes.txt").write_text("mine")
    spool = claimed(tmp_path)
    assert spool.oldest() is None
    assert sorted(path.name for path in spool.directory.iterdir()) == ["lock", "notes.txt"]


def test_a_disk_without_room_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = claimed(tmp_path)
    spool.append(lines(0, 2))
    write = os.write

    def full(descriptor: int, content: bytes | memoryview) -> int:
        if len(content) > 5:
            return write(descriptor, bytes(content[:5]))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            spool.append(lines(2, 1))
        with pytest.raises(OSError, match="No space"):
            spool.put(Batch.of(lines(2, 3)))
    spool.append(lines(2, 1))
    assert content(spool) == b"".join(lines(0, 3))


def test_an_append_that_fails_in_the_middle_says_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some lines fill the open segment, and no other can be made: the caller keeps the rest, and the rest alone."""
    spool = claimed(tmp_path)
    assert spool.append(lines(0, 4)) == 4

    def none_left(*_: Any) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", none_left)
        assert spool.append(lines(4, 9)) == 6
        with pytest.raises(OSError, match="Too many"):
            spool.append(lines(10, 3))
    assert spool.append(lines(10, 3)) == 3
    assert content(spool) == b"".join(lines(0, 13))


def test_a_segment_that_cannot_be_read_stays_aside(tmp_path: Path) -> None:
    spool = claimed(tmp_path)
    spool.append(lines(0, 11))
    first = spool.oldest()
    assert first is not None
    (path,) = tmp_path.glob(f"0/*{first.key}.ndjson")
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError):
        spool.oldest()
    kept = spool.skip()
    assert kept is not None
    assert Path(kept).exists()
    assert content(spool) == lines(10, 1)[0]


def test_only_its_user_gets_in(tmp_path: Path) -> None:
    base = tmp_path / "spool"
    base.mkdir(mode=0o755)
    spool = claimed(base)
    spool.append(lines(0, 1))
    assert base.stat().st_mode & 0o777 == 0o700
    assert spool.directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in spool.directory.iterdir()} == {0o600}
    (tmp_path / "link").symlink_to(base)
    with pytest.raises(SpoolError, match="no directory"):
        claimed(tmp_path / "link")
    if os.geteuid() == 0:
        os.chown(base, 12345, 12345)
        with pytest.raises(SpoolError, match="another user"):
            claimed(base)


def test_a_name_says_place_and_key() -> None:
    key = "0123456789abcdef" * 2
    assert parse_name(f"000000000007-{key}.ndjson") == ((7,), key)
    assert parse_name(f"000000000007.1.0-{key}.1.0.ndjson") == ((7, 1, 0), f"{key}.1.0")
    for name in ("lock", f"7-{key}.ndjson", f"000000000007-{key}.ndjson.part", f"000000000007-{key[1:]}.ndjson"):
        assert parse_name(name) is None
