"""Which replicas may answer."""

from __future__ import annotations

import pytest

from db.replication import PrimaryPosition, ReplicaPosition
from store.replicas.choice import SAMPLES_MAX, Freshness, Verdict, in_turn

CLUSTER = 7


def primary(written: int, *, started: float = 1.0) -> PrimaryPosition:
    return PrimaryPosition(written, CLUSTER, started)


def replica(replayed: int, *, is_replica: bool = True, cluster: int = CLUSTER) -> ReplicaPosition:
    return ReplicaPosition(is_replica, replayed if is_replica else None, cluster, True)


def test_a_replica_is_as_old_as_the_look_whose_place_it_has_reached() -> None:
    freshness = Freshness(lag_s_max=5)
    for at_s, written in ((0.0, 100), (1.0, 200), (2.0, 200), (3.0, 300)):
        freshness.note_primary(primary(written), at_s)
    assert freshness.judge(0, replica(300), 3.1).behind_s == 0
    assert freshness.judge(0, replica(299), 3.1).behind_s == pytest.approx(1.1), "the primary was quiet until then"
    assert freshness.judge(0, replica(150), 3.1).behind_s == pytest.approx(3.1)
    assert freshness.judge(0, replica(150), 5.0).problem is None
    assert "6 s behind" in str(freshness.judge(0, replica(150), 6.0).problem)
    assert "more behind" in str(freshness.judge(0, replica(99), 3.1).problem)


def test_who_is_no_replica_of_this_primary_is_left_out() -> None:
    freshness = Freshness(lag_s_max=5)
    assert freshness.judge(0, replica(1), 0.0).problem == "the primary was not seen yet"
    freshness.note_primary(primary(100), 0.0)
    assert freshness.judge(0, replica(100), 0.0).problem is None
    assert "another database" in str(freshness.judge(0, replica(100, cluster=8), 0.0).problem)
    assert "no replica" in str(freshness.judge(0, replica(100, is_replica=False), 0.0).problem)


def test_a_replica_of_the_primary_before_is_left_out_although_the_new_one_passes_it() -> None:
    freshness = Freshness(lag_s_max=5)
    freshness.note_primary(primary(100), 0.0)
    assert freshness.judge(0, replica(100), 0.0).problem is None
    freshness.note_primary(primary(90, started=2.0), 1.0)
    assert "another primary" in str(freshness.judge(0, replica(100), 1.0).problem)
    freshness.note_primary(primary(110, started=2.0), 2.0)
    assert "another primary" in str(freshness.judge(0, replica(100), 2.0).problem)
    assert freshness.judge(1, replica(95), 2.0).problem is None, "it follows the new one"
    assert freshness.judge(0, replica(110), 3.0).problem is None, "it was made anew"


def test_while_the_primary_is_away_replicas_go_on_however_old_they_are() -> None:
    freshness = Freshness(lag_s_max=5)
    freshness.note_primary(primary(100), 0.0)
    freshness.note_primary(None, 1.0)
    seen = [freshness.is_away]
    assert freshness.judge(1, replica(50), 60.0).problem is not None
    freshness.note_primary(None, 2.0)
    seen.append(freshness.is_away)
    assert seen == [False, True], "one answer may be late"
    assert freshness.judge(0, replica(100), 60.0).problem is None
    assert freshness.judge(0, replica(120), 60.0).problem is None, "it had written more before it went"
    verdict = freshness.judge(1, replica(50), 60.0)
    assert (verdict.problem, verdict.behind_s) == (None, None)
    freshness.note_primary(primary(130), 61.0)
    assert freshness.judge(1, replica(50), 61.0).problem is not None


def test_the_one_with_the_fewest_questions_is_asked_and_without_a_primary_the_newest() -> None:
    verdicts = [
        Verdict(None, 0.0, replayed=90, open=2),
        Verdict("down"),
        Verdict(None, 0.0, replayed=80, open=1),
        Verdict(None, 0.0, replayed=100, open=2),
    ]
    assert in_turn(verdicts, is_away=False) == [2, 0, 3]
    assert in_turn(verdicts, is_away=True) == [3, 0, 2]


def test_few_looks_are_remembered() -> None:
    freshness = Freshness(lag_s_max=5)
    for second in range(2 * SAMPLES_MAX):
        freshness.note_primary(primary(second), float(second))
    assert len(freshness._samples) == SAMPLES_MAX
