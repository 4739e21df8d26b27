"""The chain's configuration is checked completely, and errors name the field and the nearest known name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.filters.config import ServiceRates, build_chain, parse_chain
from ingest.filters.verdicts import Drop, Occasion
from ingest.settings import IngestSettings
from runtime.settings import Section, load
from schemas.errors import ConfigurationError
from schemas.record import Log

NOISY = {
    "type": "composite",
    "name": "noisy-debug",
    "mode": "all_of",
    "filters": [
        {"type": "level", "name": "below-info", "minimum": "info"},
        {"type": "service", "name": "not-noisy", "deny": ["noisy*"]},
    ],
}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ([{"type": "levl", "name": "x"}], r"filters\.0\.type 'levl' is not known: did you mean 'level'\?"),
        ([{"name": "x"}], r"filters\.0\.type is missing"),
        ([{"type": "level", "name": "x", "minimun": "INFO"}], r"filters\.0\.minimun.*did you mean 'minimum'\?"),
        ([{"type": "level", "name": "x", "minimum": "loud"}], r"filters\.0\.minimum.*level must be one of"),
        ([{"type": "level", "minimum": "INFO"}], r"filters\.0\.name"),
        ([{"type": "rate_limit", "name": "x", "logs_per_second": 0}], r"filters\.0\.logs_per_second.*greater than 0"),
        ([{"type": "sampling", "name": "x", "rate": 2}], r"filters\.0\.rate"),
        ([{"type": "content", "name": "x", "secrets": ["emial"]}], r"filters\.0\.secrets.*did you mean 'email'"),
        ([{"type": "content", "name": "x", "secrets": []}], r"would find nothing"),
        ([{"type": "content", "name": "x", "patterns": [{"name": "p", "pattern": "(?=x)"}]}], r"patterns\.0.*RE2"),
        ([{"type": "content", "name": "x", "patterns": [{"name": "p", "pattern": "x*"}]}], r"matches the empty text"),
        ([{"type": "content", "name": "x", "\ud800": 1}], r"half a surrogate pair"),
        ([{"type": "service", "name": "x", "allow": ["a b"]}], r"filters\.0\.allow\.0"),
        (
            [{**NOISY, "filters": [{"type": "levels", "name": "x"}]}],
            r"filters\.0\.filters\.0\.type 'levels' is not known",
        ),
        ([{**NOISY, "filters": []}], r"filters\.0\.filters"),
        (
            [{**NOISY, "filters": [{"type": "rate_limit", "name": "x", "logs_per_second": 1}]}],
            r"cannot stand in a composite",
        ),
        ([{**NOISY, "filters": [{"type": "content", "name": "x"}]}], r"action: block"),
        ("level", r"filters"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_wrong_configuration_is_named(config: Any, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        parse_chain(config)


def test_two_filters_of_one_name_are_refused() -> None:
    level = {"type": "level", "name": "x", "minimum": "INFO"}
    with pytest.raises(ConfigurationError, match="two filters are called 'x'"):
        build_chain(parse_chain([level, level]))


def test_composite_drops_only_what_all_children_would_drop() -> None:
    chain = build_chain(parse_chain([NOISY]))
    assert chain.judge(Log(1, 1, 5, "noisy/a", "m", None, {}), Occasion(0)) == Drop("noisy-debug")
    for level, service in ((9, "noisy/a"), (5, "shop")):
        judged = chain.judge_all([Log(1, 1, level, service, "m", None, {})], Occasion(0))
        assert len(judged.kept) == 1


def test_where_filter_uses_the_query_language() -> None:
    chain = build_chain(parse_chain([{"type": "where", "name": "w", "query": "level:error", "drop": "not_matching"}]))
    logs = [Log(1, 1, 17, "a", "m", None, {}), Log(2, 1, 9, "a", "m", None, {})]
    judged = chain.judge_all(logs, Occasion(0))
    assert [log.id for log in judged.kept] == [1]
    with pytest.raises(ConfigurationError, match=r"filters\.0\.query"):
        parse_chain([{"type": "where", "name": "w", "query": "level:loud"}])


def test_chain_is_read_from_settings_and_environment() -> None:
    class Root(Section):
        """Root."""

        ingest: IngestSettings = IngestSettings()
        """Ingest."""

    environment = {"LOGFEED_INGEST__FILTERS": "[{type: level, name: min, minimum: WARN}]"}
    settings = load(Root, file=None, environment=environment)
    assert build_chain(settings.ingest.filters).names == ["min"]
    with pytest.raises(ConfigurationError, match="did you mean 'level'"):
        load(Root, file=None, environment={"LOGFEED_INGEST__FILTERS": "[{type: levle, name: min, minimum: WARN}]"})


def test_every_example_in_the_documentation_builds() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "filters.md").read_text(encoding="utf-8")
    examples = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    assert len(examples) >= 4
    for example in examples:
        filters = example["ingest"]["filters"] if isinstance(example, dict) else example
        assert build_chain(parse_chain(filters)).names


def test_limits_that_depend_on_each_other_are_checked() -> None:
    with pytest.raises(ValueError, match="in_flight_bytes_max must be at least"):
        IngestSettings(body_bytes_max=8 * 1024 * 1024, in_flight_bytes_max=1024 * 1024)
    IngestSettings(body_bytes_max=8 * 1024 * 1024, in_flight_bytes_max=16 * 1024 * 1024)


def test_rates_of_services_stand_first_and_only_where_there_are_some() -> None:
    document = Path(__file__).parents[3] / "docs" / "limits.md"
    [example] = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", document.read_text(), re.DOTALL)]
    settings = IngestSettings.model_validate(example["ingest"])
    level = parse_chain([{"type": "level", "name": "x", "minimum": "INFO"}])
    chain = build_chain(level, rates=settings.service_rates)
    assert chain.names == ["service_rates", "x"]
    assert not chain.reads_metadata
    assert build_chain(level, rates=IngestSettings().service_rates).names == ["x"]
    only_one = ServiceRates.model_validate({"services": {"noisy": {"logs_per_second": 1}}})
    assert build_chain((), rates=only_one).names == ["service_rates"]
    same = parse_chain([{"type": "level", "name": "service_rates", "minimum": "INFO"}])
    with pytest.raises(ConfigurationError, match="two filters are called 'service_rates'"):
        build_chain(same, rates=only_one)
    assert build_chain(same).names == ["service_rates"]
    with pytest.raises(ValueError, match="pattern"):
        ServiceRates.model_validate({"services": {"a b": {"logs_per_second": 1}}})
