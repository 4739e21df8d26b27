"""One `_bulk` request: its head, then what was read of it, for the answer's wording.

A body in which every document has an id of the client's is its own Idempotency-Key: with the same ids Elasticsearch has
them once, and so do we. Without ids the same body twice may mean two documents each: lines that look alike, of one second.
"""

from __future__ import annotations

from typing import Final

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from access.principal import Principal
from ingest.problems import Refusal
from ingest.receive import Answer, Received
from ingest.records import Records
from ingest.wire.elastic.answers import Outcome, members_of, outcome_of, refused, worded
from ingest.wire.elastic.bulk import Bulk, read_bulk
from ingest.wire.elastic.document import UNKNOWN_SERVICE
from runtime.http import CUT_OFF

_PASSING: Final = (401, 403, 408, 429, 500, 503)
"""Refusals that may end without the client's sending anything else."""
PRODUCT: Final = {"X-Elastic-Product": "Elasticsearch"}
"""Without it the official clients refuse to work."""
JSON: Final = "application/json"


class BulkFormat:
    """See Format."""

    def __init__(self, request: Request, *, logs_max: int) -> None:
        """logs_max: of a body."""
        self._index: str | None = request.path_params.get("index")
        self._shown = members_of(request.query_params.get("filter_path", ""))
        self._logs_max = logs_max
        self._is_rsyslog = "user-agent" not in request.headers
        self._bulk = Bulk()

    def read(self, body: bytes, principal: Principal) -> Records:
        """See Format."""
        default_service = None if principal.may_write.only_name is not None else UNKNOWN_SERVICE
        self._bulk = read_bulk(body, index=self._index, default_service=default_service, logs_max=self._logs_max)
        return Records(self._bulk.items, have_own_times=None not in self._bulk.ids, place=self._index or "")

    def answer(self, received: Received) -> Answer:
        """See Format. Its body is an `Outcome`."""
        return Answer(200, outcome_of(received, self._bulk, keep_ids="_id" in self._shown).pack(), len(received.kept))

    def respond(self, answer: Answer) -> Response:
        """See Format."""
        body = worded(Outcome.unpack(answer.body), self._bulk, self._shown)
        return Response(body, answer.status, PRODUCT, JSON)

    def refuse(self, refusal: Refusal) -> Response:
        """See Format."""
        kind = CutOff if self._is_rsyslog and refusal.status in _PASSING else Response
        return kind(refused(refusal), refusal.status, {**PRODUCT, **refusal.headers}, JSON)


class CutOff(Response):
    """An answer whose last byte never comes: to the client the connection broke, so that it sends again.

    For rsyslog (seen in 8.2302 and 8.2504), which names no User-Agent: it reads an answer's body whatever its status, and takes
    what it does not find there for lost. A broken connection it waits for.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Response."""
        cut_off = scope.get("extensions", {}).get(CUT_OFF)
        if cut_off is None:  # another server than ours
            await super().__call__(scope, receive, send)
            return
        self.headers["content-length"] = str(len(self.body) + 1)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        cut_off()
        while (await receive())["type"] != "http.disconnect":
            pass
