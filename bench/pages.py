"""How long pages take on a store that holds a week: quiet, and again while logs come in.

The store is filled directly (bench/fill.py); a real query process answers over HTTP. Busy: the whole pipeline runs beside it
on the same cores and stores what a generator sends at a fixed rate; the newest page then ends in what has just come.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from bench.figures import ProfileFigures
from bench.fill import filled_once
from bench.load import Load
from bench.options import Options
from bench.processes import usage
from bench.progress import progress
from bench.quantiles import percentile
from bench.questions import Asked, Asker, Question, questions
from bench.site import Site

_KIND_S_MAX: Final = 90.0
"""After so long no further question of a kind is asked, once there were _QUESTIONS_MIN."""
_QUESTIONS_MIN: Final = 20


async def measure(site: Site, options: Options, figures: ProfileFigures) -> None:
    """page_p50_ms.<kind>, page_p99_ms.<kind>, the same of page_busy; page_cpu_ms.<kind> (query and database, a question);
    page_rare_word_ms_per_million_rows; bytes_per_log.<tier>; peak_mib.query."""
    filled = await filled_once(site, options)
    figures.put("page_rows", filled.rows)
    figures.put_each("bytes_per_log", filled.bytes_per_log)
    await site.start_query()
    asked = questions(filled, options.questions)
    await _ask_all(site, options, figures, asked, is_quiet=True)
    if options.busy_rate:
        # A chunk that is closed in the middle would be indexed in the middle.
        await site.start_pipeline(LOGFEED_STORE__CLOSING_DELAY_S="86400")
        load = Load(site.ingest_urls, connections=options.connections, rate=options.busy_rate, seed=90)
        async with load:
            load.go()
            await _ask_all(site, options, figures, asked, is_quiet=False)
            load.stop()
            report = await load.report()
        figures.put("page_busy_accepted_per_s", report.accepted_logs / report.took_s)
        progress(f"meanwhile {report.accepted_logs / report.took_s:,.0f} logs/s were accepted")


async def _ask_all(
    site: Site, options: Options, figures: ProfileFigures, asked: dict[str, list[Question]], *, is_quiet: bool
) -> None:
    name = "page" if is_quiet else "page_busy"
    asker = Asker(site.query_url)
    given_up = 0
    try:
        await asker.ask(asked["newest"][0])  # the first question of a process also makes its connections
        for kind, each in asked.items():
            cpu_before_s = _cpu_s(site)
            answers = await _ask_each(asker, each)
            cpu_ms = (_cpu_s(site) - cpu_before_s) / len(answers) * 1000
            given_up += sum(answer.is_given_up for answer in answers)
            _check(kind, [answer.rows for answer in answers if not answer.is_given_up])
            times_ms = [answer.took_ms for answer in answers]
            figures.put_latencies(name, kind, times_ms)
            figures.put(f"{name}_asked.{kind}", len(times_ms))
            if is_quiet:
                figures.put(f"{name}_cpu_ms.{kind}", cpu_ms)
            if kind == "rare_word":
                per_million = [
                    took_ms / question.per_million_rows
                    for took_ms, question in zip(times_ms, each, strict=False)
                    if question.per_million_rows
                ]
                figures.put(f"{name}_rare_word_ms_per_million_rows", percentile(per_million, 0.5))
            progress(f"{name} {kind}: {_shown(times_ms)}")
        deep_ms = (await asker.walk(options.deep_pages + options.questions))[options.deep_pages - 1 :]
        if deep_ms:  # a small store has fewer pages
            figures.put_latencies(name, "deep", deep_ms)
            progress(f"{name} {options.deep_pages:,} pages deep: {_shown(deep_ms)}")
    finally:
        asker.close()
    figures.put(f"{name}_given_up", given_up)
    figures.put("peak_mib.query", usage(site.roles()["query"]).peak_mib)


async def _ask_each(asker: Asker, each: Sequence[Question]) -> list[Asked]:
    """The answers; fewer than questions where these are slow, since a figure must not take all day."""
    answers: list[Asked] = []
    end_s = time.monotonic() + _KIND_S_MAX
    for question in each:
        if len(answers) >= _QUESTIONS_MIN and time.monotonic() > end_s:
            break
        answers.append(await asker.ask(question))
    return answers


def _cpu_s(site: Site) -> float:
    """CPU time of query and database."""
    roles = site.roles()
    return usage([*roles["query"], *roles["database"]]).cpu_s


def _check(kind: str, rows: list[int]) -> None:
    """Raises RuntimeError when something that is there was not found, or something that is not was."""
    if kind in ("correlation_present", "rare_word") and 0 in rows:
        raise RuntimeError(f"{kind}: {rows.count(0)} of {len(rows)} questions found nothing")
    if kind == "correlation_absent" and any(rows):
        raise RuntimeError(f"{kind}: found something")


def _shown(times_ms: list[float]) -> str:
    return f"{percentile(times_ms, 0.5):,.1f} ms (p50), {percentile(times_ms, 0.99):,.1f} ms (p99)"
