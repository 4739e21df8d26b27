"""One batch to the server, and what became of its logs.

The Idempotency-Key makes sending safe to repeat, so every failure that may pass is answered by sending the same again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import httpx
import orjson

from cli.http_client import Problem, Refused, Unreachable, request_patiently
from cli.importing.batches import Batch
from runtime.clock import Clock

_PATH: Final = "/api/v1/logs/batch"


class Rejection(NamedTuple):
    """A log that the server did not take. place: in the batch, from 0."""

    place: int
    error: str


class Outcome(NamedTuple):
    """What became of a batch. rejected: of all, `rejections` names the first of them."""

    accepted: int
    filtered: int
    rejected: int
    rejections: list[Rejection]


class Sender:
    """Sends batches; used by several tasks at once."""

    def __init__(
        self, client: httpx.AsyncClient, clock: Clock, *, give_up_after_s: float, on_wait: Callable[[str, float], None]
    ) -> None:
        """See request_patiently."""
        self._client, self._clock = client, clock
        self._give_up_after_s, self._on_wait = give_up_after_s, on_wait

    async def send(self, batch: Batch, key: str) -> Outcome:
        """Raises Unreachable when the server stays away, Refused when it refuses the request as a whole."""
        if not batch.body:
            return Outcome(0, 0, 0, [])
        response = await request_patiently(
            self._client,
            "POST",
            _PATH,
            clock=self._clock,
            give_up_after_s=self._give_up_after_s,
            on_wait=self._on_wait,
            content=batch.body,
            headers={
                "Content-Type": "application/x-ndjson",
                "Content-Encoding": "zstd",
                "Idempotency-Key": key,
            },
        )
        return read_outcome(response, logs=len(batch.lines))


def read_outcome(response: httpx.Response, *, logs: int) -> Outcome:
    """What an answer says. logs: in the request. Raises Refused, or Unreachable for an answer that is not Logfeed's."""
    if response.status_code in (200, 201):
        try:
            answer = orjson.loads(response.content)
            accepted, filtered = int(answer["accepted"]), sum(int(count) for count in answer["filtered"].values())
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unreachable(
                f"{response.url} answered, but not as a Logfeed server does: {response.text[:200]!r}"
            ) from error
        rejections = _rejections(answer)
        return Outcome(accepted, filtered, int(answer.get("rejected_count") or len(rejections)), rejections)
    problem = Problem.read(response)
    rejections = _rejections(problem.members)
    if problem.status == 422 and rejections:
        return Outcome(0, 0, logs, rejections)
    raise Refused(problem)


def _rejections(answer: Any) -> list[Rejection]:  # a JSON object
    return [
        Rejection(item["index"], str(item.get("error", "rejected")))
        for item in answer.get("rejected") or []
        if isinstance(item, dict) and isinstance(item.get("index"), int)
    ]
