"""The report: figures beside goals, errors beside figures, one schema for all of it."""

from __future__ import annotations

import xml.etree.ElementTree
from pathlib import Path

import orjson
import pytest

from bench import plot, report
from bench.figures import Figures
from bench.goals import GOALS, Goal
from bench.options import Options
from infra.fleet import EMBEDDED, FULL

MACHINE: dict[str, str | float] = {"cores": 2, "cpu_model": "a model"}


@pytest.fixture
def figures() -> Figures:
    made = Figures()
    full, embedded = made.of(FULL), made.of(EMBEDDED)
    full.put("floor_rows_per_s", 200_000.4)
    full.put("naive_rows_per_s", 30_000)
    full.put("stored_per_s", 90_000)
    full.put_ratio("stored_ratio", 90_000)
    embedded.put("stored_per_s", 40_000)
    embedded.put_ratio("stored_ratio", 40_000)
    full.put_latencies("page", "newest", [float(value) for value in range(1, 101)])
    full.put_series("accepted_per_s", [(0.5, 1_000.0), (1.5, 3_000.0)])
    full.put_series("memory_mib.ingest", [(0.0, 90.0), (1.0, 91.0)])
    return made


def test_figures_of_the_embedded_profile_have_their_prefix(figures: Figures) -> None:
    assert figures.numbers["stored_per_s"] == 90_000
    assert figures.numbers["embedded_stored_per_s"] == 40_000


def test_a_ratio_is_to_the_floor_of_its_profile_and_left_out_without_one(figures: Figures) -> None:
    assert figures.numbers["stored_ratio"] == pytest.approx(0.45, abs=1e-4)
    assert "embedded_stored_ratio" not in figures.numbers


def test_latencies_become_percentiles(figures: Figures) -> None:
    assert figures.numbers["page_p50_ms.newest"] == 50
    assert figures.numbers["page_p99_ms.newest"] == 99


@pytest.mark.parametrize(
    ("value", "expected"),
    [(123_456.7, 123_457.0), (0.123456, 0.1235), (12.3456, 12.35), (1.0, 1.0), (0.0, 0.0), (999.96, 1000.0)],
)
def test_figures_are_rounded_to_what_they_can_mean(value: float, expected: float) -> None:
    assert report.rounded(value) == expected


def test_json_has_everything(figures: Figures) -> None:
    figures.errors["full.pages"] = "RuntimeError: it broke\nfar below"
    written = orjson.loads(report.as_json(figures, MACHINE, Options()))
    assert set(written) == {"figures", "machine", "options", "errors", "latencies_ms", "series"}
    assert written["figures"]["floor_rows_per_s"] == 200_000
    assert written["machine"]["cores"] == 2
    assert written["options"]["run_s"] == 30
    assert written["series"]["accepted_per_s"] == [[0.5, 1000], [1.5, 3000]]
    assert written["latencies_ms"]["page.newest"][:2] == [1, 2]
    assert list(written["errors"]) == ["full.pages"]


def test_markdown_says_which_goals_are_met(figures: Figures) -> None:
    figures.errors["full.pages"] = "RuntimeError: it broke\nfar below"
    figures.numbers |= {"page_p50_ms.deep": 6.0, "page_p50_ms.newest": 5.0, "cpu_us_per_post.ingest": 180.0}
    text = report.as_markdown(figures, MACHINE)
    assert "| page_p50_ms.deep / page_p50_ms.newest | 1.2 | yes |" in text
    assert "| cpu_us_per_post.ingest | 180 | yes |" in text
    assert "| stored_per_s | 90,000 | **no** |" in text
    assert "| freshness_p99_ms | – | not measured |" in text
    assert "**full.pages failed:** RuntimeError: it broke\n" in text


def test_a_report_takes_the_place_of_the_last_one(tmp_path: Path, figures: Figures) -> None:
    report.write(tmp_path, figures, MACHINE, Options(), plot="<svg/>")
    assert {path.name for path in tmp_path.iterdir()} == {"latest.json", "latest.md", "latest.svg"}
    report.write(tmp_path, Figures(), MACHINE, Options(), plot=None)
    assert {path.name for path in tmp_path.iterdir()} == {"latest.json", "latest.md"}


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal("a", "", at_least=2.0), True),
        (Goal("a", "", at_least=2.1), False),
        (Goal("a", "", at_most=2.0), True),
        (Goal("a", "", at_most=1.9), False),
        (Goal("a", "", at_least=0.5, than="b"), True),
        (Goal("a", "", at_least=0.6, than="b"), False),
        (Goal("missing", "", at_least=1.0), None),
        (Goal("a", "", at_least=1.0, than="missing"), None),
    ],
)
def test_a_goal_is_met_missed_or_not_measured(goal: Goal, met: bool | None) -> None:
    assert goal.is_met({"a": 2.0, "b": 4.0}) is met


def test_every_goal_has_a_bound_and_a_text() -> None:
    for goal in GOALS:
        assert (goal.at_least is None) != (goal.at_most is None)
        assert goal.text


def test_the_picture_is_well_formed_and_names_what_it_shows(figures: Figures) -> None:
    figures.latencies_ms["page.rare & odd"] = [1.0, 2_000.0]
    drawn = plot.picture(figures)
    assert drawn is not None
    xml.etree.ElementTree.fromstring(drawn)
    for words in ("Logs a second, full profile", "Memory, MiB", "Pages, ms", "rare &amp; odd"):
        assert words in drawn
    assert plot.picture(Figures()) is None
