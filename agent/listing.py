"""Lists of files: one page of what a scope permits, by name. Blocks; runs in a thread."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from agent.errors import NoSuchFile
from agent.questions import ListQuestion, write_cursor
from agent.reading.blocks import packing_of
from agent.roots import Found, Root, Unlisted
from agent.rotation import is_rotated

ENTRIES_MAX: Final = 100_000
"""Names under one root that are looked at for a page."""
_ERRORS_MAX: Final = 20


def list_files(roots: Sequence[Root], question: ListQuestion) -> dict[str, object]:
    """The answer's document. Each page walks the folders anew: files come and go, and nothing is kept for those who never come
    back. Holds one page."""
    errors: list[str] = []
    wanted = heapq.nsmallest(question.limit + 1, _permitted(roots, question, errors), key=lambda each: each[0])
    page = wanted[: question.limit]
    return {
        "files": [_described(name, root, found) for name, root, found in page],
        "next_cursor": write_cursor(page[-1][0]) if len(wanted) > len(page) else None,
        "errors": errors[:_ERRORS_MAX],
    }


def _permitted(roots: Sequence[Root], question: ListQuestion, errors: list[str]) -> Iterator[tuple[str, Root, Found]]:
    for root in roots:
        if not question.scope.permits(root.service):
            continue
        for found in root.walk(entries_max=ENTRIES_MAX):
            if isinstance(found, Unlisted):
                errors.append(found.text)
            elif question.after is None or f"{root.name}/{found.name}" > question.after:
                yield f"{root.name}/{found.name}", root, found


def _described(name: str, root: Root, found: Found) -> dict[str, object]:
    moment = datetime.fromtimestamp(found.modified_ns // 1_000 / 1e6, UTC)
    return {
        "name": name,
        "service_name": root.service,
        "bytes": found.bytes,
        "modified_at": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "compressed": _packing(root, found),
        "rotated": is_rotated(found.name),
    }


def _packing(root: Root, found: Found) -> str | None:
    try:
        descriptor = root.open(found.name)
    except NoSuchFile:
        return None
    try:
        return packing_of(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)
