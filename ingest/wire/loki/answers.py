"""What Loki's clients are told, in plain text: 204, or a sentence. Pure.

They send again on 429 and 5xx alone, so a body that came too slowly is 503 here. A 400 means: these entries will never be
taken; the others of the request are stored.
"""

from __future__ import annotations

from typing import Final

from fastapi import Response

from ingest.problems import Refusal
from ingest.receive import NOT_PERMITTED, Answer, Received

TEXT: Final = "text/plain; charset=utf-8"


def answer(received: Received) -> Answer:
    """204 where nothing was wrong; else 400, or 403 where the key permits none, with how many entries, and why the first."""
    rejected = received.rejected
    if not rejected:
        return Answer(204, b"", len(received.kept))
    total = len(received.kept) + len(received.dropped) + len(rejected)
    index, error = rejected[0]
    status = 403 if len(rejected) == total and all(each.code == NOT_PERMITTED for _, each in rejected) else 400
    text = f"{len(rejected)} of {total} entries were not taken, the others were; the first, number {index + 1}: {error.text}\n"
    return Answer(status, text.encode("utf-8", "replace"), len(received.kept))


def respond(given: Answer) -> Response:
    """The answer."""
    if given.status == 204:
        return Response(status_code=204)
    return Response(given.body, given.status, media_type=TEXT)


def refuse(refusal: Refusal) -> Response:
    """An error as Loki words it: a sentence."""
    text = f"{refusal.detail}\n".encode("utf-8", "replace")
    if refusal.status == 408:
        return Response(text, 503, {**refusal.headers, "Retry-After": "1"}, TEXT)
    return Response(text, refusal.status, refusal.headers, TEXT)
