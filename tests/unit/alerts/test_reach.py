"""Which services a query can reach: never fewer than it does reach."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.reach import Reach, both, is_within, of_scope, reach
from schemas.record import Log
from schemas.scope import ALL_SERVICES, AUDIT_SERVICE, ServiceScope
from search.language import parse
from search.match import compile_match
from search.predicate import And, Contains, Not, Or, Predicate, ServiceIn

NAMES = ("shop", "pay", "pay/a", "pay/b", "mail")
LEAVES: st.SearchStrategy[Predicate] = st.one_of(
    st.builds(ServiceIn, st.frozensets(st.sampled_from(NAMES)), st.frozensets(st.sampled_from(("p", "pay/", "s", "")))),
    st.just(Contains("x")),
)
PREDICATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)
SCOPES = st.builds(
    ServiceScope,
    everything=st.booleans(),
    names=st.frozensets(st.sampled_from(NAMES)),
    prefixes=st.frozensets(st.sampled_from(("p", "pay/", "m"))),
    excluded=st.just(frozenset({AUDIT_SERVICE})),
)


def has(reached: Reach, name: str) -> bool:
    return reached.everything or name in reached.names or name.startswith(tuple(reached.prefixes))


@settings(deadline=None)
@given(PREDICATES, st.sampled_from(NAMES), st.sampled_from(["x", "y"]), SCOPES)
def test_what_matches_is_reached_and_what_is_within_a_right_is_permitted_by_it(
    predicate: Predicate, name: str, message: str, scope: ServiceScope
) -> None:
    log = Log(1, 1, 9, name, message, None, {})
    reached = reach(predicate)
    if compile_match(predicate)(log):
        assert has(reached, name)
        if is_within(reached, scope):
            assert scope.permits(name)
    if has(reached, name) and scope.permits(name):
        assert has(both(reached, of_scope(scope)), name)


def test_named_services_are_told_from_everything() -> None:
    assert reach(parse("service:pay/a timeout")) == Reach(names=frozenset({"pay/a"}))
    assert reach(parse("service:pay/* OR service:shop")) == Reach(
        names=frozenset({"shop"}), prefixes=frozenset({"pay/"})
    )
    assert reach(parse("NOT service:shop")).everything
    assert reach(parse("")).everything
    assert reach(parse("service:a service:b")).is_empty


def test_the_audit_log_is_within_nobodys_everything() -> None:
    everything = ServiceScope(everything=True, excluded=frozenset({AUDIT_SERVICE}))
    assert is_within(reach(parse("")), everything)
    assert not is_within(reach(parse(f"service:{AUDIT_SERVICE}")), everything)
    assert is_within(reach(parse(f"service:{AUDIT_SERVICE}")), ALL_SERVICES)
    assert not is_within(reach(parse("")), ServiceScope(prefixes=frozenset({"a"})))
