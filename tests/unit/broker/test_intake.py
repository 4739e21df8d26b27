"""Admission, counting and the choice of partitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.intake import Intake, partition_of
from broker.port import Record
from schemas.errors import Overloaded, PartitionUnavailable, RecordTooLarge
from schemas.frames import FRAME_BYTES_MAX


def test_partition_of_a_key_is_the_same_in_every_version() -> None:
    assert [partition_of(key, 7) for key in (b"", b"a", b"\x00" * 32, b"key")] == [1, 4, 2, 5]


@given(st.binary(), st.integers(1, 1024))
def test_partition_of_a_key_exists(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions


def test_round_robin_begins_where_told_and_keys_do_not_move_it() -> None:
    intake = Intake(partitions=3, bytes_max=1000, first_partition=5)
    keys = [None, b"k", None, b"k", None, None]
    chosen = [intake.admit(Record(b"", []), key) for key in keys]
    assert [partition for partition, key in zip(chosen, keys, strict=True) if key is None] == [2, 0, 1, 2]


def test_round_robin_passes_over_partitions_without_a_leader() -> None:
    intake = Intake(partitions=4, bytes_max=1000, first_partition=0)
    led = {0, 2}

    def admit(key: bytes | None = None) -> int:
        return intake.admit(Record(b"", []), key, has_leader=led.__contains__)

    assert [admit() for _ in range(4)] == [0, 2, 0, 2]
    assert {admit(b"%d" % n) for n in range(50)} == {0, 1, 2, 3}, "a key stays with its partition"
    led.clear()
    assert [admit() for _ in range(5)] == [3, 0, 1, 2, 3], "without any leader it goes on as ever"


@given(st.lists(st.tuples(st.integers(0, 400), st.booleans())))
def test_bytes_in_flight_are_those_admitted_and_not_settled(steps: list[tuple[int, bool]]) -> None:
    intake = Intake(partitions=2, bytes_max=1000, first_partition=0)
    held: list[Record] = []
    for size, settle in steps:
        if settle and held:
            intake.settle(held.pop(0))
        record = Record(bytes(size), [("name", b"value")])
        fits = sum(each.size_bytes for each in held) + record.size_bytes <= 1000
        if fits:
            intake.admit(record, None)
            held.append(record)
        else:
            with pytest.raises(Overloaded):
                intake.admit(record, None)
        assert intake.bytes_in_flight == sum(each.size_bytes for each in held) <= 1000


def test_records_that_wait_for_a_leader_hold_a_quarter_of_the_bytes_at_most() -> None:
    intake = Intake(partitions=2, bytes_max=4000, first_partition=0)
    one = Record(bytes(500), [])
    with intake.waiting(one, 0), intake.waiting(one, 1):
        with pytest.raises(PartitionUnavailable, match=r"partition 1 .* 1000 bytes wait .* not sent"):
            with intake.waiting(Record(b"x", []), 1):
                pytest.fail("there was no room")
    with intake.waiting(Record(bytes(1000), []), 0):
        pass


def test_largest_record_is_taken_and_one_byte_more_is_not() -> None:
    intake = Intake(partitions=1, bytes_max=2 * FRAME_BYTES_MAX, first_partition=0)
    assert intake.admit(Record(bytes(FRAME_BYTES_MAX - 2), [("v", b"1")]), None) == 0
    with pytest.raises(RecordTooLarge):
        intake.admit(Record(bytes(FRAME_BYTES_MAX - 1), [("v", b"1")]), None)
    assert intake.bytes_in_flight == FRAME_BYTES_MAX
