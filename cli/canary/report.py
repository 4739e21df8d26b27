"""A canary's verdict, as text and as JSON."""

from __future__ import annotations

import msgspec

from cli.canary.oracle import Delays, Verdict, Way

_NAMES = {"ack": "acknowledged", Way.PAGES.value: "seen in pages", Way.TAIL.value: "seen in the tail"}
_WAYS = {Way.PAGES.value: "pages", Way.TAIL.value: "tail"}


def as_json(run: str, verdict: Verdict, problems: list[str]) -> str:
    """One line. The fields are those of Verdict, and run, ok, problems."""
    document = {"run": run, "ok": not problems, "problems": problems, **msgspec.to_builtins(verdict)}
    return msgspec.json.encode(document).decode()


def as_text(run: str, verdict: Verdict, problems: list[str]) -> str:
    """Some lines, without the last end of line."""
    seen = ", ".join(f"{count} seen by {_WAYS[way]}" for way, count in verdict.seen.items())
    lines = [
        f"canary {run}: {verdict.sent} sent, {verdict.acknowledged} acknowledged, {seen}",
        "  " + ", ".join(_wrong(verdict)),
        *(f"  {_NAMES[name]:18} {_delay(delays)}" for name, delays in verdict.delays.items()),
    ]
    lines += [
        f"  {name.replace('_', ' ')}: e.g. {', '.join(map(str, numbers))}" for name, numbers in verdict.examples.items()
    ]
    lines += [f"  not ok: {problem}" for problem in problems] or [
        "  ok: each acknowledged log was seen exactly once, in order"
    ]
    return "\n".join(lines)


def as_line(verdict: Verdict) -> str:
    """How it stands, while it goes on."""
    slow = verdict.delays[Way.PAGES]
    delay = "" if slow.p95_s is None else f", in pages after {_time(slow.p50_s)} (p50), {_time(slow.p95_s)} (p95)"
    broken = "; ".join(verdict.broken)
    return (
        f"{verdict.sent} sent, {verdict.acknowledged} acknowledged, {verdict.waiting} not read back yet{delay}"
        f"{'; NOT OK: ' + broken if broken else ''}"
    )


def _wrong(verdict: Verdict) -> list[str]:
    return [
        f"{sum(verdict.lost.values())} lost",
        f"{verdict.repeated.get(Way.PAGES, 0)} repeated",
        f"{verdict.unsent} never sent",
        f"{verdict.altered} altered",
        f"{verdict.out_of_order} out of order",
        *([f"{verdict.late} late"] if verdict.late else []),
        *([f"{verdict.repeated[Way.TAIL]} shown again by the tail"] if verdict.repeated.get(Way.TAIL) else []),
        *([f"{verdict.not_judged} left to pages by the tail"] if verdict.not_judged else []),
    ]


def _delay(delays: Delays) -> str:
    if not delays.count:
        return "none"
    return f"after {_time(delays.p50_s)} (p50), {_time(delays.p95_s)} (p95), {_time(delays.max_s)} (max)"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
