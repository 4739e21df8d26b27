"""What a rule may be, and how mistakes are told: with the line and column, and what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from alerts.durations import duration_text, parse_duration
from alerts.errors import RuleInvalid
from alerts.matching import Matcher
from alerts.rule_files import PROBLEMS_MAX, parse_rules, read_rules
from alerts.rules import NEW_PATTERN_RULES_MAX, RULES_MAX, Rule, RuleDocument, check_share, check_together
from alerts.service import read_document
from schemas.errors import ConfigurationError

GOOD = """\
rules:
  - name: payment-errors
    query: service:pay/* level>=error
    window: 5m
    every: 30s
    for: 1m
    condition:
      count: {at_least: 10}
    group_by: [service, user.id]
    severity: critical
    labels: {team: payments}
    runbook: https://wiki.example/payments
    channels: [ops]
  - name: quiet
    query: service:cron
    window: 1h
    condition: {silence: {}}
"""


def document(**fields: Any) -> RuleDocument:
    return RuleDocument.model_validate({"name": "r", "condition": {"count": {"at_least": 1}}, **fields})


def test_a_good_file_is_read_with_its_defaults() -> None:
    rules, problems = parse_rules(GOOD, "rules.yaml")
    assert not problems
    assert [(line, rule.name) for line, rule in rules] == [(2, "payment-errors"), (14, "quiet")]
    first, second = (rule for _, rule in rules)
    assert (first.window, first.every_s, first.for_, first.severity) == (300, 30, 60, "critical")
    assert (second.every_s, second.lateness, second.groups_max, second.group_by) == (360, 10, 100, ())
    assert RuleDocument.model_validate(first.as_json()) == first


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("  - nmae: x\n    condition: {silence: {}}\n", ["2:5: nmae: there is no such field: did you mean name?"]),
        ("  - name: X\n    condition: {silence: {}}\n", ["2:5: name: String should match"]),
        ("  - name: x\n    condition: {}\n", ["3:5: condition: expected exactly one of count, rate"]),
        ("  - name: x\n    condition: {silence: {}, count: {at_least: 2}}\n", ["3:5: condition: expected exactly one"]),
        ("  - name: x\n    condition: {count: {at_last: 2}}\n", ["did you mean at_least?", "at_least: Field required"]),
        (
            "  - name: x\n    window: 5 minutes\n    condition: {silence: {}}\n",
            ["3:5: window: expected a duration such as"],
        ),
        ("  - name: x\n    window: true\n    condition: {silence: {}}\n", ["3:5: window: expected a duration such as"]),
        (
            "  - name: x\n    window: 10m\n    every: 7m\n    condition: {silence: {}}\n",
            ["2:5: window must be 1..240 times"],
        ),
        (
            "  - name: x\n    window: 7d\n    every: 1s\n    condition: {silence: {}}\n",
            ["2:5: window must be 1..240 times"],
        ),
        (
            "  - name: x\n    query: 'levle>=error AND ('\n    condition: {silence: {}}\n",
            ["3:5: query: is not in the query"],
        ),
        (
            "  - name: x\n    runbook: javascript:alert(1)\n    condition: {silence: {}}\n",
            ["3:5: runbook: expected an http"],
        ),
        (
            "  - name: x\n    labels: {severity: high}\n    condition: {silence: {}}\n",
            ["3:5: labels: 'severity' cannot be"],
        ),
        (
            "  - name: x\n    group_by: [a, a]\n    condition: {silence: {}}\n",
            ["3:5: group_by: expected each field once"],
        ),
        ("  - name: x\n    group_by: [a..b]\n    condition: {silence: {}}\n", ["3:5: group_by: 'a..b' is no field"]),
        (
            '  - name: x\n    summary: "a\\0b"\n    condition: {silence: {}}\n',
            ["3:5: summary: U+0000 cannot be stored"],
        ),
        (
            '  - name: x\n    labels: {team: "\\0"}\n    condition: {silence: {}}\n',
            ["3:5: labels: U+0000 cannot be stored"],
        ),
        ("  - name: x\n    name: y\n    condition: {silence: {}}\n", ["3:5: 'name' stands here twice"]),
        ("  - &a {name: x}\n  - *a\n", ["3:5: aliases are not taken here"]),
        ("  - name: x\n  condition: [\n", ["3:3: "]),
        ("  - 5\n", ["2:5: Input should be a valid dictionary"]),
        (
            "  - name: x\n    condition: {distinct: {field: user.id, at_least: 100000}}\n",
            ["at_least: Input should be less"],
        ),
    ],
)
def test_each_mistake_is_told_with_its_place(wrong: str, expected: list[str]) -> None:
    rules, problems = parse_rules("rules:\n" + wrong, "f.yaml")
    assert not rules
    text = "\n".join(problems)
    for each in expected:
        assert each in text, text
    assert all(problem.startswith("f.yaml:") for problem in problems)


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
    )
    _, problems = parse_rules(bomb, "f.yaml")
    assert "aliases are not taken here" in problems[0]


def test_a_directory_is_read_whole_and_names_are_unique(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yml").write_text("rules:\n  - name: quiet\n    condition: {silence: {}}\n")
    (tmp_path / "notes.txt").write_text("no rules")
    with pytest.raises(ConfigurationError, match=r"b\.yml:2: there is a rule quiet already, in .*a\.yaml:14"):
        read_rules(tmp_path)
    (tmp_path / "b.yml").unlink()
    assert [rule.name for rule in read_rules(tmp_path)] == ["payment-errors", "quiet"]
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_rules(tmp_path / "gone.yaml")


def test_rules_that_would_not_fit_into_memory_together_are_refused() -> None:
    large = {"window": "4m", "every": "1s", "group_by": ["user.id"], "groups_max": 1000}
    check_together([document(**large) for _ in range(8)])
    with pytest.raises(ValueError, match="lower groups_max"):
        check_together([document(**large) for _ in range(9)])


def test_what_decides_makes_the_fingerprint_and_what_only_tells_does_not() -> None:
    rule = Rule(document(), "user:1")
    assert rule.fingerprint == Rule(document(summary="s", severity="info", channels=["x"]), "user:1").fingerprint
    for other in (document(query="a"), document(window=600), document(group_by=["a"]), document(**{"for": 5})):
        assert rule.fingerprint != Rule(other, "user:1").fingerprint
    assert rule.fingerprint != Rule(document(), "user:2").fingerprint


@settings(deadline=None)
@given(st.integers(0, 10**7))
def test_durations_are_read_as_they_are_written(seconds: int) -> None:
    assert parse_duration(duration_text(seconds)) == seconds


@pytest.mark.parametrize("wrong", ["", "5x", "m", "9999999999", "-5m", "5m ", "1e3s", "٣m", None, -1, True, 2.5, []])
def test_what_is_no_duration_is_refused(wrong: Any) -> None:
    with pytest.raises((ValueError, ValidationError)):
        document(window=wrong)


@pytest.mark.parametrize("wrong", ["a\0", "\ud800"])
def test_no_text_is_taken_that_cannot_be_stored(wrong: str) -> None:
    """One such rule would keep all others of its files from being in force."""
    for fields in ({"summary": wrong}, {"labels": {"team": wrong}}, {"channels": [wrong]}):
        with pytest.raises(ValidationError):
            document(**fields)
    with pytest.raises(ValueError, match="cannot be stored"):
        Matcher("team", "=", wrong)


def test_a_document_of_mistakes_is_told_the_first_ones() -> None:
    body = {"name": "r", "condition": {"count": {"at_least": 1}}} | {f"x{number}": 1 for number in range(1_000)}
    with pytest.raises(RuleInvalid) as refused:
        read_document(body)
    assert len(refused.value.problems) == PROBLEMS_MAX


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({}, RULES_MAX // 2),
        ({"condition": {"new_pattern": {}}}, NEW_PATTERN_RULES_MAX // 2),
        ({"window": "4m", "every": "1s", "group_by": ["user.id"], "groups_max": 1000}, 4),
        ({"query": " OR ".join(f"service:shop-{number}" for number in range(150))}, 346),
    ],
)
def test_one_owner_has_at_most_what_it_leaves_to_others(fields: dict[str, Any], most: int) -> None:
    one = document(**fields)
    check_share(one, None, [one] * (most - 1), [])
    with pytest.raises(ValueError, match="one owner may have as much as all leave free"):
        check_share(one, None, [one] * most, [])
    others = [one] * (most // 2)
    check_share(one, None, [one] * (most // 2 - 1), others)
    with pytest.raises(ValueError, match="as all leave free"):
        check_share(one, None, [one] * (most - 1), others)
    check_share(one, one, [one] * (most - 1), others)


def test_what_others_have_of_one_thing_keeps_nobody_from_another() -> None:
    miners = [document(condition={"new_pattern": {}})] * (NEW_PATTERN_RULES_MAX // 2)
    check_share(document(), None, miners, miners)


def test_the_query_of_a_document_is_read_once() -> None:
    one = document(query="level>=error")
    assert one.predicate is one.predicate
