"""What readers make of the catalogue."""

from __future__ import annotations

from store.catalogue import Catalogue, Table, catalogued
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
        (1, [0, None]), [chunk(20), chunk(0), chunk(10, is_finished=False), chunk(30, is_finished=False)]
    )
    ground = catalogue.ground(closed_before_us=30)
    assert (ground.starts_us, ground.ends_us, ground.open_from_us, ground.late_end_us) == ([0], [10], 10, 30)
    everything_finished = Catalogue((1, [0, None]), [chunk(0), chunk(10)]).ground(closed_before_us=20)
    assert (everything_finished.starts_us, everything_finished.open_from_us) == ([0, 10], 20)


def test_a_log_is_sought_in_open_tables_and_where_its_id_can_be() -> None:
    late = [Table("logs_late_1", True, True, 3, 7, 4, 50, 60), Table("logs_late_2", True, False)]
    chunks = [chunk(0, ids=(1, 9)), chunk(10, ids=(5, 55)), chunk(20, is_finished=False)]
    catalogue = Catalogue((1, [0, None]), [*late, *chunks])
    everywhere = Arm("logs", (20, 0), BEYOND), Arm("logs_late_2", LEAST, BEYOND)
    assert catalogue.places_of(99, 20) == [*everywhere]
    assert catalogue.places_of(7, 20) == [*everywhere, Arm("logs_10", LEAST, BEYOND), Arm("logs_0", LEAST, BEYOND)]
    assert Arm("logs_late_1", LEAST, BEYOND) in catalogue.places_of(50, 20)


def test_what_the_catalogue_does_not_know_of_a_table_is_as_wide_as_can_be() -> None:
    (table,) = catalogued([("logs_late_1", "late", "open", None, None, None, None, None, False)])
    assert (table.is_late, table.is_finished, table.start_us, table.end_us) == (True, False, LEAST_US, GREATEST_US)
    assert table.may_hold(0)
    assert table.may_hold((1 << 63) - 1)
