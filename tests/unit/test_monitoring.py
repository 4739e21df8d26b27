"""Alert rules, runbooks and the dashboard name what there is: each metric and label is one of the code's registry."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import promql_parser
import pytest
import yaml

from ingest.settings import IngestSettings
from runtime.telemetry import REGISTRY

ROOT: Final = Path(__file__).resolve().parents[2]
RULES_FILE: Final = ROOT / "infra/prometheus/alerts.yml"
DASHBOARD_FILE: Final = ROOT / "infra/grafana/dashboards/logfeed.json"
RUNBOOKS: Final = ROOT / "docs/runbooks"
SCRAPED: Final = frozenset({"job", "instance"})
"""Labels that Prometheus gives every series of a target."""
OF_PROMETHEUS: Final = {"up": SCRAPED}
SUFFIXES: Final[dict[str, dict[str, set[str]]]] = {
    "histogram": {"_bucket": {"le"}, "_count": set(), "_sum": set()},
    "counter": {"_total": set()},
}
DURATION: Final = r"^(\d+[smhdw])+$"

RULES_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["groups"],
    "additionalProperties": False,
    "properties": {
        "groups": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "rules"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string", "pattern": "^logfeed-[a-z]+$"},
                    "interval": {"type": "string", "pattern": DURATION},
                    "rules": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["alert", "expr", "labels", "annotations"],
                            "additionalProperties": False,
                            "properties": {
                                "alert": {"type": "string", "pattern": "^Logfeed([A-Z][a-z]+)+$"},
                                "expr": {"type": "string"},
                                "for": {"type": "string", "pattern": DURATION},
                                "labels": {
                                    "type": "object",
                                    "required": ["severity"],
                                    "additionalProperties": False,
                                    "properties": {"severity": {"enum": ["critical", "warning", "info"]}},
                                },
                                "annotations": {
                                    "type": "object",
                                    "required": ["summary", "runbook"],
                                    "additionalProperties": False,
                                    "properties": {"summary": {"type": "string"}, "runbook": {"type": "string"}},
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}
"""Of a Prometheus rule file, as far as ours goes."""

RULES: Final[dict[str, Any]] = yaml.safe_load(RULES_FILE.read_text())  # Any: parsed files
DASHBOARD: Final[dict[str, Any]] = json.loads(DASHBOARD_FILE.read_text())
ALERTS: Final[list[dict[str, Any]]] = [rule for group in RULES["groups"] for rule in group["rules"]]
NAMES: Final = [rule["alert"] for rule in ALERTS]
PANELS: Final[list[dict[str, Any]]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


@cache
def metrics() -> dict[str, frozenset[str]]:
    """Name of a series -> its labels, of all that any process registers."""
    for path in ROOT.glob("*/**/*.py"):
        if path.parts[len(ROOT.parts)] not in {".venv", "tests"} and "registry=REGISTRY" in path.read_text():
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found = dict(OF_PROMETHEUS)
    names: dict[Any, list[str]] = REGISTRY._collector_to_names
    for collector in names:
        labels = frozenset(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            for suffix, more in SUFFIXES.get(family.type, {"": set()}).items():
                found[family.name + suffix] = labels | SCRAPED | more
    return found


def selectors(expression: promql_parser.Expr) -> Iterator[promql_parser.VectorSelector]:
    """All that a query selects."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(expression, pre_visit=visit)
    yield from found


@dataclass(frozen=True)
class Query:
    """One query and where it stands."""

    place: str
    text: str


def queries() -> list[Query]:
    rules = [Query(rule["alert"], rule["expr"]) for rule in ALERTS]
    panels = [Query(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
    return rules + panels


def parsed(text: str) -> promql_parser.Expr:
    """Variables of Grafana have a value."""
    return promql_parser.parse(text.replace("$__rate_interval", "5m").replace("$job", "logfeed.*"))


@pytest.mark.parametrize("query", queries(), ids=lambda query: f"{query.place}: {query.text}"[:80])
def test_every_query_is_promql_over_metrics_and_labels_that_there_are(query: Query) -> None:
    known = metrics()
    asked = list(selectors(parsed(query.text)))
    assert asked, "a query asks for something"
    for selector in asked:
        assert selector.name in known, f"{selector.name} is no metric of ours"
        for matcher in selector.matchers.matchers:
            assert matcher.name in known[selector.name], f"{selector.name} has no label {matcher.name}"
    shown = frozenset[str]().union(*(known[str(selector.name)] for selector in asked))
    for labels in re.findall(r"\bby \(([^)]*)\)", query.text):
        assert {label.strip() for label in labels.split(",")} <= shown


def test_rules_are_a_rule_file() -> None:
    jsonschema.Draft202012Validator(RULES_SCHEMA).validate(RULES)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_each_alert_has_a_runbook_that_says_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    name = re.sub(r"(?<!^)(?=[A-Z])", "-", rule["alert"].removeprefix("Logfeed")).lower()
    assert rule["annotations"]["runbook"] == f"docs/runbooks/{name}.md"
    page = (ROOT / rule["annotations"]["runbook"]).read_text()
    assert page.startswith(f"# {rule['alert']}\n\nSeverity: {rule['labels']['severity']}.\n\n")
    means, look, do = re.split(r"\n## (?:Look at|Do)\n", page)
    assert len(means.split("\n\n")[2].split()) > 5
    assert re.search(r"^- \S", look, re.MULTILINE)
    assert re.search(r"^- \S", do, re.MULTILINE)


def test_retention_at_risk_is_told_before_ingest_refuses() -> None:
    (rule,) = (rule for rule in ALERTS if rule["alert"] == "LogfeedRetentionRisk")
    refuses_at = IngestSettings().retention_risk_max
    told_at = float(rule["expr"].rpartition(">")[2])
    assert 0 < told_at < refuses_at


def test_each_runbook_has_an_alert_and_is_listed() -> None:
    pages = {path.name for path in RUNBOOKS.glob("*.md")} - {"README.md"}
    assert pages == {Path(rule["annotations"]["runbook"]).name for rule in ALERTS}
    listed = re.findall(
        r"^\| \[(\w+)\]\(([\w-]+\.md)\) \| (\w+) \|$", (RUNBOOKS / "README.md").read_text(), re.MULTILINE
    )
    assert listed == [
        (rule["alert"], Path(rule["annotations"]["runbook"]).name, rule["labels"]["severity"]) for rule in ALERTS
    ]


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.name)
def test_runbooks_name_metrics_that_there_are(page: Path) -> None:
    for name in re.findall(r"\blogfeed_[a-z_]+", page.read_text()):
        assert any(known.startswith(name) for known in metrics()), name


def test_the_manual_names_metrics_that_there_are() -> None:
    named = set(re.findall(r"\blogfeed_[a-z_]+", (ROOT / "docs/operating.md").read_text()))
    known = metrics()
    assert not {name for name in named if name not in known and f"{name}_sum" not in known}


def test_no_label_is_what_clients_send() -> None:
    """Each label is of a fixed list, or named by who configures; a new one has to say here which."""
    fixed = {
        *("beside", "chore", "kind", "operation", "outcome", "reason", "route", "server", "source", "stage", "state"),
        *("status", "step", "tier", "transport", "way", "what"),
    }
    configured = {"channel", "filter", "limit", "partition", "replica", "rule"}
    found = frozenset[str]().union(*metrics().values()) - SCRAPED - {"le"}
    assert found <= fixed | configured, found - fixed - configured


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_summaries_use_labels_that_the_query_leaves(rule: dict[str, Any]) -> None:
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    kept = re.search(r"^(?:sum|min|max) by \(([^)]*)\)", rule["expr"])
    if kept is not None:
        assert used <= {label.strip() for label in kept[1].split(",")}
    elif re.match(r"(?:sum|min|max|histogram_quantile|time)\(", rule["expr"]):
        assert not used, "all series became one"
    else:
        assert used <= frozenset[str]().union(*(metrics()[str(each.name)] for each in selectors(parsed(rule["expr"]))))


def test_dashboard_is_one_that_grafana_takes() -> None:
    assert DASHBOARD["uid"] == "logfeed"
    assert isinstance(DASHBOARD["schemaVersion"], int)
    assert "id" not in DASHBOARD, "it is of one server"
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "job"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_each_panel_says_what_it_shows_and_asks_the_chosen_prometheus(panel: dict[str, Any]) -> None:
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)
    for target in panel["targets"]:
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert shown <= frozenset[str]().union(
            *(metrics()[str(each.name)] for each in selectors(parsed(target["expr"])))
        )


def test_a_metric_that_is_not_there_would_be_found() -> None:
    assert "logfeed_rows_stored_total" in metrics()
    assert "logfeed_rows_stored" not in metrics()
    assert metrics()["logfeed_lag_records"] == {"partition", "job", "instance"}
    assert "le" in metrics()["logfeed_canary_delay_seconds_bucket"]
    assert "process_open_fds" in metrics()
