"""The miner: what is alike, what stays apart, ids that last, and bounds that nothing breaks."""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.counts import latest
from patterns.expression import covers
from patterns.families import FAMILY_TEMPLATES_MAX, VALUES_MAX, id_of
from patterns.miner import BUCKET_FAMILIES_MAX, Changes, InvalidSnapshot, Limits, Miner
from tests.unit.patterns.hostile import streams

USERS = ("ann", "bob", "cy", "dee", "eve", "fay", "gus", "hal")


def texts(miner: Miner, lines: Iterable[str], service: str = "s") -> list[str]:
    return [miner.template_of(service, line).text for line in lines]


def known(miner: Miner) -> set[tuple[str, str]]:
    return {(template.service, template.text) for template in miner.templates()}


def test_lines_that_differ_in_numbers_are_one_template() -> None:
    lines = [f"request {n} took {n * 7} ms from 10.0.0.{n}" for n in range(50)]
    assert set(texts(Miner(), lines)) == {"request <num> took <num> ms from <ip>"}


def test_a_few_words_stay_apart_and_many_become_a_wildcard() -> None:
    miner = Miner()
    states = [f"machine entered state {state} now" for state in ("OPEN", "CLOSED", "HALF", "DONE")]
    assert texts(miner, states) == states
    logins = [f"user {user} logged in" for user in USERS]
    assert texts(miner, logins)[:VALUES_MAX] == logins[:VALUES_MAX]
    assert set(texts(miner, logins)) == {"user <*> logged in"}
    assert texts(miner, states) == states


def test_a_masked_token_beside_another_is_a_variable_at_once() -> None:
    miner = Miner()
    texts(miner, ["peer 10.0.0.1 is gone", "peer db.internal is gone"])
    assert known(miner) == {("s", "peer <*> is gone")}


def test_what_values_have_in_common_stays() -> None:
    miner = Miner()
    texts(miner, [f"login by user={user}, on {user}.corp.example" for user in USERS])
    assert known(miner) == {("s", "login by user=<*>, on <*>.corp.example")}
    assert texts(miner, ["login by someone on zoe.corp.example"]) == ["login by <*> on <*>.corp.example"]


def test_different_messages_of_the_same_length_stay_apart() -> None:
    lines = ["disk is almost full", "cache was not warmed", "started listening on port"]
    assert texts(Miner(), lines * 2) == lines * 2


def test_variable_first_words_are_alike_once_there_are_many() -> None:
    miner, chance = Miner(), random.Random(3)
    names = ["".join(chance.choices("abcdefgh", k=8)) for _ in range(300)]
    assert texts(miner, [f"{name} joined the room" for name in names])[-1] == "<*> joined the room"


def test_services_know_nothing_of_each_other() -> None:
    miner = Miner()
    texts(miner, [f"user {user} logged in" for user in USERS], "a")
    assert texts(miner, ["user ann logged in"], "b") == ["user ann logged in"]


def test_ids_are_the_same_in_every_process_and_release() -> None:
    assert Miner().template_of("s", "user 7 logged in").id == id_of("user <num> logged in") == 0x52DA094A30922C8E
    assert 0 < id_of("") < 2**63


def test_each_merge_is_told_so_that_counts_can_follow() -> None:
    miner = Miner()
    lines = [f"user {user} logged in" for user in USERS]
    ids = [miner.template_of("s", line).id for line in lines]
    changes = miner.changes()
    assert [created.text for created in changes.created] == [*lines[:VALUES_MAX], "user <*> logged in"]
    assert {latest("s", found, changes.into()) for found in ids} == {id_of("user <*> logged in")}
    assert changes.lost == 0
    assert miner.changes() == Changes([], [], 0)


def test_changes_nobody_asks_for_are_bounded_and_counted() -> None:
    miner = Miner(changes_max=3)
    texts(miner, ["alpha", "beta", "gamma", "delta", "epsilon"])
    changes = miner.changes()
    assert ([created.text for created in changes.created], changes.lost) == (["gamma", "delta", "epsilon"], 2)


@settings(deadline=None, max_examples=30)
@given(streams())
def test_merges_lead_to_more_general_templates_that_are_known(stream: list[str]) -> None:
    miner = Miner()
    texts(miner, stream)
    changes = miner.changes()
    text_of = {created.id: created.text for created in changes.created}
    into = changes.into()
    living = {template.id for template in miner.templates()}
    for merged in changes.merged:
        assert covers(text_of[merged.into_id], text_of[merged.id])
        assert text_of[merged.into_id] != text_of[merged.id]
    assert {latest("s", found, into) for found in text_of} == living


@settings(deadline=None, max_examples=30)
@given(streams())
def test_the_same_lines_in_the_same_order_give_the_same_templates(stream: list[str]) -> None:
    one, other = Miner(), Miner()
    assert texts(one, stream) == texts(other, stream)
    assert one.snapshot() == other.snapshot()


@settings(deadline=None, max_examples=30)
@given(streams(), st.integers(0, 100))
def test_a_restart_forgets_nothing(stream: list[str], at: int) -> None:
    miner = Miner()
    texts(miner, stream[:at])
    restored = Miner.restore(miner.snapshot())
    assert known(restored) == known(miner)
    assert restored.snapshot() == miner.snapshot()
    assert restored.changes().created == []
    # A line that fits two families may go to the other one now, but so it does after each restart.
    assert texts(restored, stream) == texts(Miner.restore(miner.snapshot()), stream)


def test_a_restored_miner_goes_on_generalising_where_it_was() -> None:
    miner = Miner()
    texts(miner, [f"user {user} logged in" for user in USERS[:VALUES_MAX]])
    restored = Miner.restore(miner.snapshot())
    assert texts(restored, ["user zoe logged in"]) == ["user <*> logged in"]
    assert len(restored.changes().merged) == VALUES_MAX


def test_a_snapshot_is_taken_into_smaller_limits() -> None:
    miner = Miner()
    texts(miner, [f"{word} alone" for word in USERS], "a")
    texts(miner, [f"{word} alone" for word in USERS], "b")
    restored = Miner.restore(miner.snapshot(), Limits(templates=5, service_templates=4, services=1))
    assert {service for service, _ in known(restored)} == {"b"}
    assert len(known(restored)) <= 4
    assert ("b", "hal alone") in known(restored)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"no snapshot",
        msgspec.msgpack.encode([2, 0, 0, []]),
        msgspec.msgpack.encode([1, 0, 0, [["s", 1, [[[2, b""], [], []]]]]]),
        msgspec.msgpack.encode([1, 0, 0, [["s", 1, [[[1, b"a"], [[b"a"]], []]]]]]),
        msgspec.msgpack.encode([1, 0, 0, [["s", 1, [[[1, b"a"], [[b"a"]], [[[b"a", b"b"], 1]]]]]]]),
        msgspec.msgpack.encode([1, 0, 0, [["s", 1, [[[1, b"a"], [[b"", b"", b""]], [[[b"a"], 1]]]]]]]),
    ],
)
def test_what_is_no_snapshot_is_refused(damage: bytes) -> None:
    with pytest.raises(InvalidSnapshot, match="expected"):
        Miner.restore(damage)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_a_damaged_snapshot_is_refused_or_harmless(data: st.DataObject) -> None:
    miner = Miner()
    texts(miner, [*(f"user {user} is in={user}." for user in USERS), "job 1 done", ""])
    snapshot = bytearray(miner.snapshot())
    for _ in range(data.draw(st.integers(1, 3))):
        snapshot[data.draw(st.integers(0, len(snapshot) - 1))] = data.draw(st.integers(0, 255))
    try:
        restored = Miner.restore(bytes(snapshot))
    except InvalidSnapshot:
        return
    texts(restored, ["user ann is in=ann.", "job 2 done", "", "user x is in=7."])


def test_a_flood_of_different_lines_stays_within_the_limits() -> None:
    limits = Limits(templates=60, service_templates=40, services=3)
    miner, chance = Miner(limits), random.Random(5)
    for number in range(3_000):
        words = ["".join(chance.choices("abcdefghij", k=6)) for _ in range(chance.randrange(1, 9))]
        miner.template_of(f"service-{number % 5}", " ".join(words))
        count = sum(1 for _ in miner.templates())
        assert count <= limits.templates
    per_service: dict[str, int] = {}
    for template in miner.templates():
        per_service[template.service] = per_service.get(template.service, 0) + 1
    assert len(per_service) <= limits.services
    assert max(per_service.values()) <= limits.service_templates
    assert miner.evicted_templates > 1_000
    assert Miner.restore(miner.snapshot(), limits).evicted_templates == miner.evicted_templates


def test_what_is_in_use_is_not_evicted() -> None:
    miner, chance = Miner(Limits(templates=20, service_templates=20, services=1)), random.Random(6)
    for _ in range(500):
        assert texts(miner, ["the heart beats"]) == ["the heart beats"]
        texts(miner, ["".join(chance.choices("abcdefghij", k=12))])
        assert ("s", "the heart beats") in known(miner)
    assert miner.evicted_templates > 400


def test_a_template_that_comes_again_has_its_id_again() -> None:
    miner = Miner(Limits(templates=3, service_templates=3, services=1))
    first = miner.template_of("s", "here I am").id
    texts(miner, USERS)
    assert ("s", "here I am") not in known(miner)
    assert miner.template_of("s", "here I am").id == first


def test_a_family_of_many_combinations_is_bounded() -> None:
    miner = Miner()
    words = USERS[:VALUES_MAX]
    lines = [f"a b c d e f g {x} {y} {z}" for x in words for y in words for z in words]
    texts(miner, lines)
    assert len(known(miner)) <= FAMILY_TEMPLATES_MAX
    assert sum(text.count("<*>") for _, text in known(miner)) > 0


def test_a_line_is_compared_with_few_families() -> None:
    """Lines of one length and one first word, alike in nothing else."""
    miner, chance = Miner(), random.Random(7)
    for _ in range(4 * BUCKET_FAMILIES_MAX):
        texts(miner, ["begin " + " ".join("".join(chance.choices("abcdefghij", k=7)) for _ in range(9))])
    assert len({id(template.family) for template in miner.templates()}) == BUCKET_FAMILIES_MAX
    assert miner.evicted_templates >= 3 * BUCKET_FAMILIES_MAX


@pytest.mark.parametrize(
    "message",
    [
        "x" * 262_144,
        "a " * 131_072,
        '"' * 262_144,
        "<num>" * 50_000,
        "/" * 262_144,
        "0:" * 131_072,
        "-" * 262_144,
        "1." * 131_072,
        "\n" * 262_144,
        "Traceback (most recent call last):\n" + "  File x\n" * 20_000,
        "é" * 131_072,
        "\0" * 1_000,
        "\ud800 lone",
        "漢字 😀 \u202e",
    ],
)
def test_the_largest_and_oddest_messages_have_a_template(message: str) -> None:
    miner = Miner()
    template = miner.template_of("s", message)
    assert miner.template_of("s", message) is template
    assert len(template.text.encode()) <= 400
    assert Miner.restore(miner.snapshot()).template_of("s", message).text == template.text


@pytest.mark.parametrize("wrong", [{"templates": 0}, {"service_templates": 0}, {"services": 0}])
def test_limits_of_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Limits(**wrong)
