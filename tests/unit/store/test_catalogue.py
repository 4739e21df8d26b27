"""What readers make of the catalogue."""

from __future__ import annotations

from store.catalogue import Catalogue, Part, Table, catalogued
from store.port import OpenIndex
from store.scan_windows import BEYOND, GREATEST_US, LEAST, LEAST_US, Arm


def chunk(start: int, *, is_finished: bool = True, ids: tuple[int, int] = (0, 99)) -> Table:
    return Table(
        f"logs_{start}",
        False,
        is_finished,
        start,
        start + 10,
        5 if is_finished else None,
        *(ids if is_finished else ()),
    )


def test_finished_chunks_end_where_the_first_unfinished_one_begins() -> None:
    catalogue = Catalogue(
        (1, [0, None], 1, 0), [chunk(20), chunk(0), chunk(10, is_finished=False), chunk(30, is_finished=False)]
    )
    ground = catalogue.ground(closed_before_us=30)
    assert (ground.starts_us, ground.ends_us, ground.open_from_us, ground.late_end_us) == ([0], [10], 10, 30)
    everything_finished = Catalogue((1, [0, None], 1, 0), [chunk(0), chunk(10)]).ground(closed_before_us=20)
    assert (everything_finished.starts_us, everything_finished.open_from_us) == ([0, 10], 20)


def test_a_log_is_sought_in_open_tables_and_where_its_id_can_be() -> None:
    late = [Table("logs_late_1", True, True, 3, 7, 4, 50, 60), Table("logs_late_2", True, False)]
    chunks = [chunk(0, ids=(1, 9)), chunk(10, ids=(5, 55)), chunk(20, is_finished=False)]
    catalogue = Catalogue((1, [0, None], 1, 0), [*late, *chunks])
    everywhere = Arm("logs", (20, 0), BEYOND), Arm("logs_late_2", LEAST, BEYOND)
    assert catalogue.places_of(99, 20) == [*everywhere]
    assert catalogue.places_of(7, 20) == [*everywhere, Arm("logs_10", LEAST, BEYOND), Arm("logs_0", LEAST, BEYOND)]
    assert Arm("logs_late_1", LEAST, BEYOND) in catalogue.places_of(50, 20)


def test_what_the_catalogue_does_not_know_of_a_table_is_as_wide_as_can_be() -> None:
    (table,) = catalogued([("logs_late_1", "late", "open", None, None, None, None, None, False, False, False)])
    assert (table.is_late, table.is_finished, table.start_us, table.end_us) == (True, False, LEAST_US, GREATEST_US)
    assert table.may_hold(0)
    assert table.may_hold((1 << 63) - 1)


def part(
    number: int,
    *,
    kind: OpenIndex = OpenIndex.METADATA,
    open_from: int = 0,
    is_own: bool = True,
    keys: str = "",
    end: int = 99,
) -> Part:
    sizes = {"logs_20": 1_000, "logs_30": 1_000 * number}
    return Part(kind, f"open_{kind}_{number}", number, number + 1, 10, open_from, 0, end, sizes, tuple(keys), is_own)


def test_parts_count_up_to_the_first_that_is_not_of_use() -> None:
    def counting(*parts: Part) -> dict[OpenIndex, tuple[tuple[str, ...], int, int]]:
        made = Catalogue((1, [0, None], 1, 0), [chunk(20, is_finished=False)], parts, closed_before_us=30)
        by = {kind: found for kind in OpenIndex if (found := made.parts_by(kind)) is not None}
        return {kind: (tuple(found.tables()), found.to_xid, found.rows) for kind, found in by.items()}

    both = ("open_metadata_1", "open_metadata_2"), 3, 20
    assert counting() == {}
    assert counting(part(1), part(2, open_from=20)) == {OpenIndex.METADATA: both}
    for useless in (part(3, open_from=21), part(3, is_own=False)):
        assert counting(part(1), part(2), useless, part(4)) == {OpenIndex.METADATA: both}
        story = part(1, kind=OpenIndex.CORRELATION)
        assert counting(story, useless, part(4)) == {OpenIndex.CORRELATION: (("open_correlation_1",), 2, 10)}


def test_rows_beside_the_parts_are_told_from_what_chunks_have_grown_that_are_not_finished() -> None:
    parts = Catalogue((1, [0, None], 1, 0), [], [part(1), part(3)]).parts_by(OpenIndex.METADATA)
    assert parts is not None
    assert parts.rows_beside({"logs_20": 1_000, "logs_30": 3_000}) == 0
    assert parts.rows_beside({"logs_20": 1_000, "logs_30": 3_600}) == 3
    # logs_20 is finished by now: what it had says nothing about what the others have grown.
    assert parts.rows_beside({"logs_30": 3_600, "logs_40": 400}) == 5


def test_a_key_is_sought_in_the_newest_parts_that_know_it_and_only_in_what_is_newer_than_the_others() -> None:
    parts = [
        part(1, keys="ab", end=40),
        part(2, keys="a", end=60),
        part(3, keys="abc", end=50),
        part(4, keys="bc", end=70),
    ]
    catalogue = Catalogue((1, [0, None], 1, 0), [], parts)

    def asked(keys: str) -> tuple[int, int] | None:
        found = catalogue.parts_by(OpenIndex.METADATA, keys)
        return None if found is None else (len(found.tables()), found.from_us)

    assert asked("") == (4, LEAST_US)
    assert asked("c") == asked("bc") == asked("b") == (2, 60)
    assert asked("a") is asked("abc") is None
    assert Catalogue((1, [0, None], 1, 0), [], parts[:3]).parts_by(OpenIndex.METADATA, "a") is not None
    assert list(catalogue.known_keys) == ["b", "c"]
    assert list(Catalogue((1, [0, None], 1, 0), []).known_keys) == []
