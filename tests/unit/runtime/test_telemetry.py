"""Our own logs: JSON lines on standard error, libraries' warnings among them, no secrets from tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from typing import Any

from prometheus_client import Counter

from runtime.clock import ManualClock, SystemClock
from runtime.telemetry import REGISTRY, render_metrics

PROGRAM = """
import logging, sys, structlog
from runtime.telemetry import configure_logging
configure_logging(level=sys.argv[1], json_lines={"json": True, "text": False, "by itself": None}[sys.argv[2]], role="tester")
log = structlog.get_logger("anywhere")
log.debug("finest")
log.info("batch stored", rows=412, text='zwei\\nZeilen "x"')
log.warning("slow", seconds=1.5)
logging.getLogger("library").info("chatter")
logging.getLogger("library").warning("%s is %s", "it", "odd")
def fail():
    password = "hunter2"
    raise ValueError("broken")
try:
    fail()
except ValueError:
    log.exception("failed")
"""


def written(level: str, form: str) -> str:
    done = subprocess.run([sys.executable, "-c", PROGRAM, level, form], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


def lines(level: str, form: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written(level, form).splitlines()]


def test_each_event_is_one_line_of_json() -> None:
    found = lines("debug", "json")
    events = [(line["event"], line["level"]) for line in found]
    assert events == [
        ("finest", "debug"),
        ("batch stored", "info"),
        ("slow", "warning"),
        ("it is odd", "warning"),
        ("failed", "error"),
    ]
    assert found[1]["rows"] == 412
    assert found[1]["text"] == 'zwei\nZeilen "x"'
    assert found[3]["logger"] == "library"
    assert found[4]["exception"].endswith("ValueError: broken")
    for line in found:
        assert line["role"] == "tester"
        offset = datetime.fromisoformat(line["timestamp"]).utcoffset()
        assert offset is not None
        assert not offset


def test_threshold_is_kept() -> None:
    assert [line["event"] for line in lines("info", "json")][:1] == ["batch stored"]
    assert [line["event"] for line in lines("error", "json")] == ["failed"]


def test_json_is_the_form_where_no_terminal_is() -> None:
    assert [line["event"] for line in lines("error", "by itself")] == ["failed"]


def test_text_is_for_people_and_shows_no_local_variables() -> None:
    text = written("info", "text")
    assert "batch stored" in text
    assert "ValueError: broken" in text
    assert "hunter2" not in text
    assert "hunter2" not in written("info", "json")


def test_metrics_are_rendered_from_our_registry() -> None:
    counter = Counter("logfeed_test_things", "Things.", registry=REGISTRY)
    try:
        counter.inc(3)
        body, content_type = render_metrics()
    finally:
        REGISTRY.unregister(counter)
    assert b"logfeed_test_things_total 3.0" in body
    assert b"process_resident_memory_bytes" in body
    assert content_type.startswith("text/plain")


def test_manual_clock_moves_when_told() -> None:
    clock = ManualClock(1_000)
    clock.advance(1.5)
    assert (clock.now_us(), clock.monotonic_s()) == (1_501_000, 1.5)


def test_system_clock_tells_microseconds_since_1970() -> None:
    clock = SystemClock()
    first = clock.monotonic_s()
    assert abs(clock.now_us() / 1e6 - datetime.now().timestamp()) < 10
    assert clock.monotonic_s() >= first
