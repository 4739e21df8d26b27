"""The broker's log must be the one the partition was stored from."""

from __future__ import annotations

import pytest

from store.port import Lease
from tests.unit.writer.builders import frame, log
from writer.positions import BrokenSequence, Positions


def lease(next_offset: int, *, frame_id: int | None) -> Lease:
    """A lease of partition 0."""
    stored = frame_id.to_bytes(16, "big") if frame_id is not None else None
    return Lease(partition=0, epoch=1, next_offset=next_offset, last_frame_id=stored, halted=None)


def test_new_partition_starts_at_its_first_record() -> None:
    positions = Positions()
    assert positions.start([lease(0, frame_id=None)], {0: 0}) == {0: 0}
    assert positions.accept(frame([log(1)], offset=0))
    assert positions.next_offset(0) == 1


def test_restart_compares_the_last_stored_frame_and_skips_it() -> None:
    positions = Positions()
    assert positions.start([lease(5, frame_id=42)], {0: 0}) == {0: 4}
    assert not positions.accept(frame([log(1)], offset=4, frame_id=42))
    assert positions.accept(frame([log(2)], offset=5))


def test_topic_made_again_halts() -> None:
    positions = Positions()
    positions.start([lease(5, frame_id=42)], {0: 0})
    with pytest.raises(BrokenSequence, match="made again"):
        positions.accept(frame([log(1)], offset=4, frame_id=43))


def test_log_that_starts_exactly_at_the_next_offset_needs_no_comparison() -> None:
    positions = Positions()
    assert positions.start([lease(5, frame_id=42)], {0: 5}) == {0: 5}
    assert positions.accept(frame([log(1)], offset=5))


def test_deleted_frames_halt_and_are_counted() -> None:
    with pytest.raises(BrokenSequence, match="3 frames were deleted"):
        Positions().start([lease(5, frame_id=42)], {0: 8})


def test_gap_halts() -> None:
    positions = Positions()
    positions.start([lease(0, frame_id=None)], {0: 0})
    positions.accept(frame([log(1)], offset=0))
    with pytest.raises(BrokenSequence, match="gap"):
        positions.accept(frame([log(2)], offset=2))


def test_position_set_by_hand_needs_no_comparison() -> None:
    positions = Positions()
    assert positions.start([lease(7, frame_id=None)], {0: 0}) == {0: 7}
    assert positions.accept(frame([log(1)], offset=7))
