"""What waits for a client is bounded, and what is left out is counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from live.events import Gap, GapReason
from query.tail.queue import ClientQueue


@given(bodies=st.lists(st.binary(min_size=1, max_size=30), max_size=20), bytes_max=st.integers(1, 60))
def test_the_newest_stay_within_the_bound_and_the_others_are_counted(bodies: list[bytes], bytes_max: int) -> None:
    queue = ClientQueue()
    skipped = sum(queue.add(body, bytes_max=bytes_max) for body in bodies)
    assert queue.size_bytes <= max(bytes_max, len(bodies[-1]) if bodies else 0)
    taken = queue.take()
    assert taken.skipped == skipped == len(bodies) - len(taken.bodies)
    assert taken.bodies == bodies[skipped:]
    assert not bodies or taken.bodies
    assert queue.is_empty
    assert queue.take().skipped == 0


def test_the_last_gap_of_each_partition_is_told() -> None:
    queue = ClientQueue()
    for gap in (Gap(0, 1, 2, GapReason.EXPIRED), Gap(1, 5, 6, GapReason.NEWER), Gap(0, 2, 9, GapReason.EXPIRED)):
        queue.add_gap(gap)
    assert not queue.is_empty
    assert queue.take().gaps == [Gap(1, 5, 6, GapReason.NEWER), Gap(0, 2, 9, GapReason.EXPIRED)]
