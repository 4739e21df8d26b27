"""What the store is asked, and how long until 100 rows or the true end, following cursors.

Every kind is asked with varied values; of the searches every second one ends at a random moment of the seven days, the others
at the newest row. Questions follow one another on one connection. An answer 503 is asked again after Retry-After, within the
question's time. Kept answers are not wanted (`Cache-Control: no-cache`).
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from bench.fill import Filled, Known, Needle, of_both_ages
from bench.lines import COMMON_WORDS, ORDER_KEY, ORDER_VALUES, SERVICES
from bench.wire import Answer, HttpConnection, Target
from schemas.ids import SEQUENCE_BITS
from schemas.times import time_text

ROWS_WANTED: Final = 100
QUESTION_S_MAX: Final = 60.0
"""A question that takes longer is given up and counts so long."""
_UNUSED_WORKER: Final = 777
_PAGE: Final = "/api/v1/logs"


@dataclass(frozen=True, slots=True)
class Question:
    """One question."""

    kind: str
    path: str
    rows_wanted: int = ROWS_WANTED
    status: int = 200
    """What the answer must be."""
    per_million_rows: float | None = None
    """Millions of rows that have to be looked at before the first match."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of a question."""

    took_ms: float
    rows: int
    requests: int
    is_given_up: bool


class Asker:
    """Asks on one connection."""

    def __init__(self, query_url: str) -> None:
        """query_url: base URL of the query process."""
        self._target = Target.of(query_url)
        self._connection = HttpConnection(self._target)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    async def ask(self, question: Question) -> Asked:
        """Follow the question to its rows or its end. Raises RuntimeError for an answer that must not be."""
        began_s = time.monotonic()
        path, rows, requests = question.path, 0, 0
        while True:
            answer = await self._get(path, question.status, began_s)
            requests += 1
            took_ms = (time.monotonic() - began_s) * 1000
            if answer is None:
                return Asked(took_ms, rows, requests, is_given_up=True)
            page = orjson.loads(answer.body)
            rows += len(page.get("logs", ()))
            cursor = page.get("next_cursor")
            if cursor is None or rows >= question.rows_wanted:
                return Asked(took_ms, rows, requests, is_given_up=False)
            path = with_cursor(question.path, cursor)

    async def walk(self, pages: int) -> list[float]:
        """ms of each of so many pages of 100 without a filter, one after the other."""
        times_ms: list[float] = []
        path = f"{_PAGE}?limit={ROWS_WANTED}"
        for _ in range(pages):
            began_s = time.monotonic()
            answer = await self._get(path, 200, began_s)
            if answer is None:
                raise RuntimeError("a page of a walk did not come")
            cursor = orjson.loads(answer.body)["next_cursor"]
            times_ms.append((time.monotonic() - began_s) * 1000)
            if cursor is None:
                break
            path = with_cursor(f"{_PAGE}?limit={ROWS_WANTED}", cursor)
        return times_ms

    async def _get(self, path: str, status: int, began_s: float) -> Answer | None:
        """The answer; None past the question's time."""
        head = self._target.get_head(path)
        while time.monotonic() - began_s < QUESTION_S_MAX:
            answer = await self._connection.request(head)
            if answer.status == status:
                return answer
            if answer.status != 503:
                raise RuntimeError(f"{path} was answered {answer.status}: {answer.body[:500]!r}")
            await asyncio.sleep(answer.retry_after_s or 0.1)
        return None


def with_cursor(path: str, cursor: str) -> str:
    """The path that asks for the page at a cursor."""
    return f"{path}{'&' if '?' in path else '?'}{urlencode({'cursor': cursor})}"


def questions(filled: Filled, how_many: int, seed: int = 1) -> dict[str, list[Question]]:
    """Kind -> questions; the deep pages are walked instead (`Asker.walk`)."""
    chance = random.Random(seed)
    known = [chance.choice(_side(filled, number)) for number in range(how_many)]
    searches: dict[str, list[dict[str, Any]]] = {  # Any: text or number
        "newest": [{} for _ in range(how_many)],
        "service": [{"service_name": SERVICES[number % len(SERVICES)]} for number in range(how_many)],
        "errors": [{"min_level": "ERROR"} for _ in range(how_many)],
        "metadata": [{f"metadata.{ORDER_KEY}": f"o-{chance.randrange(ORDER_VALUES):04}"} for _ in range(how_many)],
        "common_word": [{"q": COMMON_WORDS[number % len(COMMON_WORDS)]} for number in range(how_many)],
    }
    asked = {
        kind: [
            _search(kind, values | ({"end_time": _moment(filled, chance)} if number % 2 else {}))
            for number, values in enumerate(each)
        ]
        for kind, each in searches.items()
    }
    asked["id_present"] = [Question("id_present", f"{_PAGE}/{row.log_id}") for row in known]
    asked["id_absent"] = [Question("id_absent", f"{_PAGE}/{_absent(row)}", status=404) for row in known]
    asked["correlation_present"] = [_correlation("correlation_present", row.correlation_id) for row in known]
    asked["correlation_absent"] = [
        _correlation("correlation_absent", f"{chance.getrandbits(128):032x}") for _ in range(how_many)
    ]
    asked["rare_word"] = [_rare(needle, filled) for needle in filled.needles]
    return asked


def _search(kind: str, values: dict[str, Any]) -> Question:
    return Question(kind, f"{_PAGE}?{urlencode({**values, 'limit': ROWS_WANTED})}")


def _correlation(kind: str, correlation_id: str) -> Question:
    return Question(kind, f"/api/v1/correlations/{correlation_id}/logs?limit={ROWS_WANTED}")


def _rare(needle: Needle, filled: Filled) -> Question:
    """From the newest of the rows that were filled in: what comes in meanwhile must not make it deeper."""
    path = f"{_PAGE}?{urlencode({'q': needle.word, 'end_time': time_text(filled.end_us), 'limit': 1})}"
    return Question("rare_word", path, rows_wanted=1, per_million_rows=max(needle.depth_rows, 1) / 1e6)


def _side(filled: Filled, number: int) -> list[Known]:
    """Old and new rows in turn."""
    old, new = of_both_ages(filled.known)
    return new if number % 2 else old


def _absent(row: Known) -> int:
    """An id of the same moment that no worker gave out."""
    return row.log_id + (_UNUSED_WORKER << SEQUENCE_BITS)


def _moment(filled: Filled, chance: random.Random) -> str:
    return time_text(chance.randrange(filled.start_us + (filled.end_us - filled.start_us) // 20, filled.end_us))
