"""The canary's oracle: what happens to logs is found and told for what it is, and a run without end takes bounded memory."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.canary.oracle import WRONG_MAX, Oracle, Verdict, Way, judge
from cli.canary.report import as_json, as_line, as_text

LOST_AFTER_US = 60_000_000
SECOND_US = 1_000_000


@dataclasses.dataclass(frozen=True)
class Fate:
    """What happens to one log."""

    is_acknowledged: bool
    stored: int
    """How often pages have it, each time under another id."""
    tailed: int
    """How often the tail shows it."""


FATES = st.lists(
    st.builds(Fate, is_acknowledged=st.booleans(), stored=st.integers(0, 3), tailed=st.integers(0, 3)), max_size=30
)


def ids(number: int, stored: int) -> list[str]:
    return [str(number * 10 + copy) for copy in range(stored)]


def after(oracle: Oracle, fates: Sequence[Fate], unsent: Sequence[int], chance: random.Random) -> Verdict:
    """Everything is sent, then shown: by one walk in order, and by the tail in any order; then time passes, and pages show it
    all once more."""
    now_us = 0
    for fate in fates:
        now_us += SECOND_US
        number = oracle.send(now_us)
        (oracle.acknowledge if fate.is_acknowledged else oracle.give_up)(number, now_us + 1000)
    tailed = [number for number, fate in enumerate(fates, 1) for _ in range(fate.tailed)] + list(unsent)
    chance.shuffle(tailed)
    for number in tailed:
        oracle.see(Way.TAIL, number, str(number), now_us)
    paged = [(number, each) for number, fate in enumerate(fates, 1) for each in ids(number, fate.stored)]
    for began_us in (now_us, now_us + 2 * LOST_AFTER_US):
        walk = oracle.walk(began_us)
        for number, log_id in paged:
            walk.see(number, log_id, began_us)
        walk.end()
    oracle.judge_tail(now_us + 2 * LOST_AFTER_US)
    return oracle.verdict(now_us + 2 * LOST_AFTER_US)


@given(fates=FATES, unsent=st.sets(st.integers(-5, 100)), seed=st.integers(0, 1000))
def test_as_logs_come_it_finds_what_a_comparison_of_everything_finds(
    fates: list[Fate], unsent: set[int], seed: int
) -> None:
    foreign = [number for number in unsent if not 1 <= number <= len(fates)]
    verdict = after(Oracle(lost_after_us=LOST_AFTER_US), fates, foreign, random.Random(seed))
    sent = range(1, len(fates) + 1)
    acknowledged = [number for number in sent if fates[number - 1].is_acknowledged]
    pages = judge(sent=sent, acknowledged=acknowledged, seen=[n for n in sent for _ in range(fates[n - 1].stored)])
    tail = judge(
        sent=sent, acknowledged=acknowledged, seen=[n for n in sent for _ in range(fates[n - 1].tailed)] + foreign
    )
    assert verdict.lost == {"pages": len(pages.lost), "tail": len(tail.lost)}
    assert verdict.repeated == {"pages": len(pages.repeated), "tail": len(tail.repeated)}
    assert verdict.unsent == len(tail.unsent) == len(foreign)
    assert (verdict.out_of_order, verdict.altered, verdict.waiting) == (0, 0, 0)
    assert verdict.acknowledged == len(acknowledged)
    assert verdict.unacknowledged == len(fates) - len(acknowledged)
    is_good = pages.ok and not tail.lost and not foreign and len(acknowledged) == len(fates) > 0
    assert (not verdict.problems) == is_good
    if pages.lost:
        assert set(verdict.examples["lost_pages"]) <= pages.lost


@given(
    sent=st.sets(st.integers(0, 50)),
    lost=st.sets(st.integers(0, 50)),
    twice=st.sets(st.integers(0, 50)),
    unsent=st.sets(st.integers(100, 120)),
    seed=st.integers(0, 1000),
)
def test_a_comparison_names_each_log_that_is_wrong_and_no_other(
    sent: set[int], lost: set[int], twice: set[int], unsent: set[int], seed: int
) -> None:
    acknowledged = {number for number in sent if number % 3}
    present = sent - lost
    seen = [*present, *(present & twice), *unsent]
    random.Random(seed).shuffle(seen)
    found = judge(sent=sent, acknowledged=acknowledged, seen=seen)
    assert found.lost == acknowledged & lost
    assert found.repeated == present & twice
    assert found.unsent == unsent
    assert found.ok == (not found.lost and not found.repeated and not unsent)
    assert (str(found) == "each acknowledged log was seen exactly once") == found.ok


@given(st.permutations(range(8)))
def test_a_comparison_knows_what_is_out_of_order(positions: list[int]) -> None:
    found = judge(sent=range(8), acknowledged=range(8), seen=positions, positions=positions)
    assert (found.out_of_order == 0) == (positions == sorted(positions))


@given(st.permutations(range(1, 8)))
def test_a_walk_that_is_not_in_order_is_told(shown: list[int]) -> None:
    oracle = Oracle(lost_after_us=LOST_AFTER_US, ways=[Way.PAGES])
    for number in range(1, 8):
        oracle.send(number)
        oracle.acknowledge(number, number)
    walk = oracle.walk(10)
    for number in shown:
        walk.see(number, str(number), 10)
    walk.end()
    verdict = oracle.verdict(10)
    after_a_later_one = {number for place, number in enumerate(shown) if number < max(shown[: place + 1])}
    assert verdict.out_of_order == len(after_a_later_one)
    assert (not verdict.broken) == (shown == sorted(shown))


def one_log(*ways: Way) -> Oracle:
    oracle = Oracle(lost_after_us=LOST_AFTER_US, ways=ways or tuple(Way))
    assert oracle.send(0) == 1
    oracle.acknowledge(1, SECOND_US)
    return oracle


def test_nothing_is_lost_while_no_walk_came_to_its_end() -> None:
    oracle = one_log(Way.PAGES)
    oracle.walk(10 * LOST_AFTER_US).see(5, "5", 0)  # cut off: it never ends
    oracle.walk(LOST_AFTER_US).end()  # it began too early to know
    assert oracle.verdict(10 * LOST_AFTER_US).lost == {"pages": 0}
    assert oracle.waits
    oracle.walk(LOST_AFTER_US + SECOND_US).end()
    verdict = oracle.verdict(10 * LOST_AFTER_US)
    assert verdict.lost == {"pages": 1}
    assert verdict.examples["lost_pages"] == [1]
    assert not oracle.waits, "what is lost is not waited for"


def test_what_is_seen_after_all_was_late_and_is_not_lost() -> None:
    oracle = one_log(Way.PAGES)
    oracle.walk(2 * LOST_AFTER_US).end()
    walk = oracle.walk(3 * LOST_AFTER_US)
    walk.see(1, "1", 3 * LOST_AFTER_US)
    verdict = oracle.verdict(3 * LOST_AFTER_US)
    assert (verdict.lost, verdict.late, verdict.broken) == ({"pages": 0}, 1, [])


def test_a_second_copy_is_found_by_its_id_walks_later() -> None:
    oracle = one_log(Way.PAGES)
    for log_id in ("7", "7", "8", "8"):
        walk = oracle.walk(0)
        walk.see(1, log_id, 0)
        walk.end()
    assert oracle.verdict(0).repeated == {"pages": 1}


def test_a_tail_that_left_logs_out_and_said_so_has_lost_none() -> None:
    oracle = one_log()
    oracle.see(Way.PAGES, 1, "1", SECOND_US)
    oracle.gap(SECOND_US)
    oracle.judge_tail(10 * LOST_AFTER_US)
    verdict = oracle.verdict(10 * LOST_AFTER_US)
    assert (verdict.lost, verdict.not_judged, verdict.waiting) == ({"pages": 0, "tail": 0}, 1, 0)
    oracle.send(20 * LOST_AFTER_US)
    oracle.acknowledge(2, 20 * LOST_AFTER_US)
    oracle.judge_tail(30 * LOST_AFTER_US)
    assert oracle.verdict(0).lost["tail"] == 1, "what came after the gap is the tail's to show"


def test_another_text_than_was_sent_is_told() -> None:
    oracle = one_log(Way.PAGES)
    oracle.walk(0).see(1, "1", 0, intact=False)
    verdict = oracle.verdict(0)
    assert (verdict.altered, verdict.lost) == (1, {"pages": 0})
    assert verdict.broken == ["1 logs are not what was sent"]


def test_an_unacknowledged_log_may_be_there_or_not() -> None:
    for is_seen in (False, True):
        oracle = Oracle(lost_after_us=LOST_AFTER_US, ways=[Way.PAGES])
        oracle.send(0)
        oracle.give_up(1, 0)
        walk = oracle.walk(2 * LOST_AFTER_US)
        if is_seen:
            walk.see(1, "1", 0)
        walk.end()
        verdict = oracle.verdict(2 * LOST_AFTER_US)
        assert verdict.broken == []
        assert verdict.waiting == 0
        assert verdict.problems == ["1 logs were not acknowledged in time"]


def test_a_run_without_end_takes_bounded_memory() -> None:
    window = 100
    oracle = Oracle(lost_after_us=LOST_AFTER_US, window=window)
    for number in range(1, 5000):
        assert oracle.has_room
        oracle.send(number)
        oracle.acknowledge(number, number)
        oracle.see(Way.TAIL, number, str(number), number)
        oracle.see(Way.PAGES, number, str(number), number)
        oracle.see(Way.TAIL, -number, "0", number)
    assert oracle.oldest_known == 5000 - window
    assert len(oracle._logs) == window
    verdict = oracle.verdict(5000)
    assert (verdict.seen, verdict.unsent) == ({"pages": 4999, "tail": 4999}, WRONG_MAX)
    oracle.see(Way.TAIL, 1, "1", 5000)
    assert oracle.verdict(5000).repeated["tail"] == 1, "what was forgotten had been seen"


def test_whoever_sends_waits_while_nobody_reads_back() -> None:
    oracle = Oracle(lost_after_us=LOST_AFTER_US, ways=[Way.PAGES], window=10)
    while oracle.has_room:
        oracle.acknowledge(oracle.send(0), 0)
    with pytest.raises(RuntimeError, match="no room"):
        oracle.send(0)
    oracle.see(Way.PAGES, 1, "1", 0)
    assert oracle.has_room


def test_delays_are_from_sending() -> None:
    told: list[tuple[str, float]] = []
    oracle = Oracle(lost_after_us=LOST_AFTER_US, on_delay=lambda way, seconds: told.append((way, seconds)))
    for number in range(1, 101):
        oracle.send(0)
        oracle.acknowledge(number, 1000)
        oracle.see(Way.PAGES, number, "1", number * 10_000)
    delays = oracle.verdict(SECOND_US).delays
    assert (delays["ack"].max_s, delays["tail"].count) == (0.001, 0)
    assert (delays["pages"].p50_s, delays["pages"].p95_s, delays["pages"].max_s) == (0.51, 0.96, 1.0)
    assert told[:2] == [("ack", 0.001), ("pages", 0.01)]
    assert oracle.verdict(SECOND_US).oldest_waiting_s == 1.0, "the tail has shown none"


def test_reports_say_what_is_wrong() -> None:
    oracle = one_log()
    oracle.see(Way.TAIL, 1, "1", SECOND_US)
    oracle.walk(10 * LOST_AFTER_US).end()
    verdict = oracle.verdict(10 * LOST_AFTER_US)
    text = as_text("r1", verdict, verdict.problems)
    assert "1 sent, 1 acknowledged, 0 seen by pages, 1 seen by tail" in text
    assert "not ok: 1 acknowledged logs were not seen by pages" in text
    assert "lost pages: e.g. 1" in text
    assert "NOT OK" in as_line(verdict)
    found = json.loads(as_json("r1", verdict, verdict.problems))
    assert (found["ok"], found["run"], found["lost"]) == (False, "r1", {"pages": 1, "tail": 0})
    assert set(found) == {"run", "ok", "problems", *msgspec.structs.asdict(verdict)}


def test_a_run_in_which_nothing_was_acknowledged_is_no_success() -> None:
    assert Oracle(lost_after_us=1).verdict(0).problems == ["nothing was acknowledged"]
