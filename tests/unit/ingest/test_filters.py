"""Filters: each rule, their combination, and that nothing is lost count of."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.buckets import Rate
from ingest.filters.chain import Chain
from ingest.filters.composite import Composite, Mode
from ingest.filters.config import build_chain, parse_chain
from ingest.filters.level import Level
from ingest.filters.rate_limit import RateLimit
from ingest.filters.sampling import Sampling
from ingest.filters.service import Service, scope_of
from ingest.filters.verdicts import PASS, AnyLog, Drop, Filter, Gist, Occasion, Pass, Refuse, Verdict
from ingest.filters.where import Where
from schemas.record import Log
from schemas.scope import ALL_SERVICES, NO_SERVICES


def make_log(level: int = 9, service_name: str = "shop", message: str = "m") -> Log:
    return Log(1, 1, level, service_name, message, None, {})


def test_level_drops_what_is_below_the_minimum() -> None:
    rule = Level("min", minimum=13)
    assert rule.judge(make_log(12), Occasion(0)) == Drop("min")
    assert rule.judge(make_log(13), Occasion(0)) is PASS


@pytest.mark.parametrize(
    ("service_name", "passes"),
    [("shop/a", True), ("shop/b", False), ("auth", True), ("authx", False), ("other", False)],
)
def test_service_allows_and_denies_with_deny_winning(service_name: str, passes: bool) -> None:
    rule = Service("s", allow=scope_of(("shop/*", "auth")), deny=scope_of(("shop/b",)))
    assert (rule.judge(make_log(service_name=service_name), Occasion(0)) is PASS) is passes


def test_where_drops_matching_or_keeps_only_matching() -> None:
    assert Where("w", matches=lambda log: log.level > 9, drop_matching=True, reads_metadata=False).judge(
        make_log(13), Occasion(0)
    ) == Drop("w")
    assert (
        Where("w", matches=lambda log: log.level > 9, drop_matching=False, reads_metadata=False).judge(
            make_log(13), Occasion(0)
        )
        is PASS
    )


# --- rate limit ---------------------------------------------------------------------------------------------------


def limit(
    on_exceed: str = "drop",
    *,
    rate: float = 10.0,
    burst: float = 3.0,
    services_max: int = 100,
    own: dict[str, Rate] | None = None,
) -> RateLimit:
    assert on_exceed in ("drop", "refuse")
    how = "drop" if on_exceed == "drop" else "refuse"
    return RateLimit("limit", rate=Rate(rate, burst), services=own or {}, on_exceed=how, services_max=services_max)  # type: ignore[arg-type]  # checked above


def kept(chain: Chain, count: int, occasion: Occasion, service_name: str = "shop") -> int | Refuse:
    judged = chain.judge_all([make_log(service_name=service_name) for _ in range(count)], occasion)
    return judged.refusal or len(judged.kept)


def test_rate_limit_drops_above_the_burst_and_refills() -> None:
    chain = Chain([limit()])
    assert kept(chain, 5, Occasion(100.0)) == 3
    assert kept(chain, 5, Occasion(100.0)) == 0
    assert kept(chain, 5, Occasion(100.2)) == 2
    assert kept(chain, 5, Occasion(200.0)) == 3
    assert kept(chain, 5, Occasion(200.0), "auth") == 3


def test_refusing_limit_takes_whole_requests_and_pays_them_off() -> None:
    chain = Chain([limit("refuse")])
    assert kept(chain, 13, Occasion(100.0)) == 13
    refusal = kept(chain, 1, Occasion(100.5))
    assert isinstance(refusal, Refuse)
    assert refusal.retry_after_s == 1
    assert kept(chain, 1, Occasion(101.2)) == 1


def test_keyed_request_is_refused_whole_by_a_dropping_limit_and_retry_is_not_counted_again() -> None:
    chain = Chain([limit("drop")])
    assert kept(chain, 5, Occasion(100.0, key=b"k")) == 5
    assert isinstance(kept(chain, 1, Occasion(100.0, key=b"l")), Refuse)
    assert kept(chain, 5, Occasion(100.0, key=b"k", admitted=True)) == 5


def test_refused_request_leaves_no_trace_in_other_buckets() -> None:
    chain = Chain([limit("refuse")])
    assert kept(chain, 4, Occasion(100.0), "b") == 4
    mixed = [make_log(service_name="a"), make_log(service_name="b")]
    for _ in range(20):
        assert isinstance(chain.judge_all(mixed, Occasion(100.0)).refusal, Refuse)
    assert kept(Chain([limit("drop")]), 3, Occasion(100.0), "a") == 3
    assert chain.judge_all([make_log(service_name="a")], Occasion(100.0)).refusal is None


def test_buckets_are_bounded_and_full_ones_make_room() -> None:
    rule = limit(services_max=2)
    chain = Chain([rule])
    for name in ("a", "b"):
        assert kept(chain, 5, Occasion(100.0), name) == 3
    assert kept(chain, 2, Occasion(100.0), "c") == 2
    assert kept(chain, 2, Occasion(100.0), "d") == 1, "c and d share the bucket of those that found no room"
    assert kept(chain, 5, Occasion(101.0), "e") == 3, "a was full again and made room"


def test_a_service_has_its_own_rate_by_name_then_by_the_longest_prefix() -> None:
    own = {"pay/*": Rate(1.0, 5.0), "pay/cards/*": Rate(1.0, 7.0), "pay/cards/eu": Rate(1.0, 9.0)}
    chain = Chain([limit(own=own)])
    for name, burst in (("shop", 3), ("pay/a", 5), ("pay/b", 5), ("pay/cards/us", 7), ("pay/cards/eu", 9)):
        assert kept(chain, 20, Occasion(100.0), name) == burst
    only_some = Chain([RateLimit("l", rate=None, services={"noisy": Rate(1.0, 2.0)}, on_exceed="refuse")])
    assert kept(only_some, 50, Occasion(100.0), "quiet") == 50
    assert kept(only_some, 50, Occasion(100.0), "noisy") == 50
    assert isinstance(kept(only_some, 1, Occasion(100.0), "noisy"), Refuse)
    assert kept(only_some, 50, Occasion(100.0), "quiet") == 50


def test_a_flood_of_made_up_services_wins_no_fresh_buckets_and_takes_none_away() -> None:
    """With a thousand times as many names as there are buckets."""
    services_max, flood = 20, 20_000
    chain = Chain([limit(services_max=services_max, own={"named": Rate(10.0, 3.0), "pay/*": Rate(10.0, 3.0)})])
    for name in ("shop", "named"):
        assert kept(chain, 50, Occasion(100.0), name) == 3
    passed = sum(int(kept(chain, 1, Occasion(100.0), f"made/up/{number}") == 1) for number in range(flood))
    assert passed == (services_max - 1) + 3, "each bucket that was left gave a token, the shared one three"
    assert kept(chain, 1, Occasion(100.0), "shop") == 0, "what it has used up is not forgotten"
    assert kept(chain, 1, Occasion(100.0), "named") == 0
    assert kept(chain, 5, Occasion(100.0), "pay/a") == 3, "those of a prefix share another"
    assert kept(chain, 5, Occasion(100.15), "shop") == 1, "and it has its own all the time"
    assert kept(chain, 5, Occasion(100.15), "named") == 1


# --- sampling -----------------------------------------------------------------------------------------------------


def test_sampling_goes_by_service_then_level_then_the_rest() -> None:
    rule = Sampling("s", rate=0.0, by_level={"ERROR": 1.0}, by_service={"auth": 0.5}, random=iter([0.4, 0.6]).__next__)
    assert rule.judge(make_log(18), Occasion(0)) is PASS
    assert rule.judge(make_log(18, "auth"), Occasion(0)) is PASS
    assert rule.judge(make_log(18, "auth"), Occasion(0)) == Drop("s")
    unlucky = Sampling("s", rate=0.0, by_level={}, by_service={}, random=lambda: 0.0)
    assert unlucky.judge(make_log(), Occasion(0)) == Drop("s")


def test_keyed_sampling_is_a_pure_function_of_key_and_index() -> None:
    def no_chance() -> float:
        raise AssertionError("a keyed request must not depend on chance")

    rule = Sampling("s", rate=0.3, by_level={}, by_service={}, random=no_chance)
    chain = Chain([rule])
    logs = [make_log(message=str(n)) for n in range(5_000)]
    first = chain.judge_all(logs, Occasion(0, key=b"k" * 32)).kept
    assert first == chain.judge_all(logs, Occasion(99, key=b"k" * 32)).kept
    assert first != chain.judge_all(logs, Occasion(0, key=b"l" * 32)).kept
    assert 0.25 < len(first) / 5_000 < 0.35


# --- composite ----------------------------------------------------------------------------------------------------


@given(conditions=st.lists(st.booleans(), min_size=1, max_size=5))
def test_composite_combines_the_conditions_of_its_children(conditions: list[bool]) -> None:
    def drops(mode: Mode) -> bool:
        children: list[Filter] = [
            Where(str(n), matches=lambda _: True, drop_matching=condition, reads_metadata=False)
            for n, condition in enumerate(conditions)
        ]
        return Composite("c", mode=mode, children=children).judge(make_log(), Occasion(0)) == Drop("c")

    assert drops(Mode.ALL_OF) is all(conditions)
    assert drops(Mode.ANY_OF) is any(conditions)
    assert drops(Mode.NONE_OF) is not any(conditions)


# --- chain --------------------------------------------------------------------------------------------------------

filters = st.one_of(
    st.builds(lambda n: ("level", n), st.integers(1, 24)),
    st.builds(lambda n: ("limit", n), st.integers(1, 20)),
    st.builds(lambda n: ("refuse", n), st.integers(1, 20)),
    st.just(("service", 0)),
    st.builds(lambda n: ("sampling", n), st.integers(0, 10)),
    st.just(("mask", 0)),
    st.builds(lambda n: ("composite", n), st.integers(0, 2)),
)
requests_of = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(1, 24), st.sampled_from(["shop", "auth", "pay"])), max_size=20),
        st.sampled_from([None, b"key"]),
    ),
    max_size=5,
)


class Mask:
    """Changes every log, as a content filter does."""

    reads_metadata = False

    def __init__(self, name: str) -> None:
        self.name = name

    def judge(self, log: AnyLog, occasion: Occasion) -> Pass:
        return Pass(Log(log.id, log.timestamp, log.level, log.service_name, log.message + "*", None, {}))

    def passes_all(self, gist: Gist, occasion: Occasion) -> bool:
        return False


class AskedOfEach:
    """A filter without its shortcut."""

    def __init__(self, rule: Filter) -> None:
        self.name = rule.name
        self.reads_metadata = rule.reads_metadata
        self._rule = rule

    def judge(self, log: AnyLog, occasion: Occasion) -> Verdict:
        return self._rule.judge(log, occasion)

    def passes_all(self, gist: Gist, occasion: Occasion) -> bool:
        return False


def build(kind: str, number: int, name: str) -> Filter:
    match kind:
        case "level":
            return Level(name, minimum=number)
        case "limit":
            return RateLimit(name, rate=Rate(1, number), services={}, on_exceed="drop")
        case "refuse":
            return RateLimit(name, rate=Rate(1, number), services={}, on_exceed="refuse")
        case "service":
            return Service(name, allow=ALL_SERVICES, deny=scope_of(("auth",)))
        case "sampling":
            return Sampling(name, rate=number / 10, by_level={}, by_service={}, random=random.Random(0).random)
        case "composite":
            children = [build("level", 9, "a"), build("service", 0, "b")]
            return Composite(name, mode=list(Mode)[number], children=children)
        case _:
            return Mask(name)


@given(
    rules=st.lists(filters, max_size=5),
    requests=requests_of,
)
def test_kept_dropped_by_name_and_refused_are_the_input(
    rules: list[tuple[str, int]], requests: list[tuple[list[tuple[int, str]], bytes | None]]
) -> None:
    chain = Chain([build(kind, number, f"f{n}") for n, (kind, number) in enumerate(rules)])
    for now_s, (logs, key) in enumerate(requests):
        given_logs = [Log(n, 1, level, service, "m", None, {}) for n, (level, service) in enumerate(logs)]
        judged = chain.judge_all(given_logs, Occasion(float(now_s), key=key))
        refused = len(logs) if judged.refusal is not None else 0
        assert len(judged.kept) + sum(judged.dropped_by.values()) + refused == len(logs)
        if judged.refusal is not None:
            assert not judged.kept
            assert not judged.dropped
        assert set(judged.dropped_by) <= set(chain.names)
        masks = sum(kind == "mask" for kind, _ in rules)
        assert all(log.message == "m" + "*" * masks for log in judged.kept)


@given(rules=st.lists(filters, max_size=5), requests=requests_of)
def test_letting_a_request_pass_by_its_gist_comes_to_what_asking_of_each_log_does(
    rules: list[tuple[str, int]], requests: list[tuple[list[tuple[int, str]], bytes | None]]
) -> None:
    """Tokens included: the requests follow one another."""
    short = Chain([build(kind, number, f"f{n}") for n, (kind, number) in enumerate(rules)])
    long = Chain([AskedOfEach(build(kind, number, f"f{n}")) for n, (kind, number) in enumerate(rules)])
    for request, (logs, key) in enumerate(requests):
        given_logs = [Log(n, 1, level, service, "m", None, {}) for n, (level, service) in enumerate(logs)]
        found = [chain.judge_all(given_logs, Occasion(request / 4, key=key)) for chain in (short, long)]
        assert found[0] == found[1]


def test_filters_never_change_a_log_in_place() -> None:
    chain = build_chain(
        parse_chain([{"type": "content", "name": "c"}, {"type": "level", "name": "l", "minimum": "INFO"}])
    )
    log = Log(1, 1, 9, "shop", "password=x", None, {"a": {"b": ["a@b.example"]}})
    (masked,) = chain.judge_all([log], Occasion(0)).kept
    assert log == Log(1, 1, 9, "shop", "password=x", None, {"a": {"b": ["a@b.example"]}})
    assert masked == Log(1, 1, 9, "shop", "password=[masked:password]", None, {"a": {"b": ["[masked:email]"]}})


def test_empty_scope_allows_nothing() -> None:
    assert Service("s", allow=NO_SERVICES, deny=NO_SERVICES).judge(make_log(), Occasion(0)) == Drop("s")
