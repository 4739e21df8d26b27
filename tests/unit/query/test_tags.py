"""Tags of pages: the same where the page would be, and nothing can be told from them."""

from __future__ import annotations

from typing import Final

from access.principal import ANYONE
from query.answers import Answers, Asked
from query.params import parse_find
from query.settings import QuerySettings
from runtime.clock import SystemClock
from store.memory import MemoryDatabase, MemoryStore

ITEMS: Final = [("start_time", "2026-01-01T00:00:00Z"), ("end_time", "2026-01-02T00:00:00Z")]


async def nothing_unread() -> dict[int, int]:
    return {}


async def tag_of(database: MemoryDatabase) -> str:
    store = MemoryStore(database)
    answers = Answers(QuerySettings(), store, clock=SystemClock(), unread=nothing_unread)
    answer = await answers.find(parse_find(ITEMS, now_us=0), ANYONE, asked=Asked())
    assert answer.etag is not None
    return answer.etag


async def test_processes_of_one_store_give_one_tag_and_nobody_without_its_secret_makes_it() -> None:
    """Offsets tell how much everybody sends: who knows all of a question but them must not find them by trying."""
    one, other = MemoryDatabase(), MemoryDatabase()
    assert one.secret != other.secret
    tag = await tag_of(one)
    assert await tag_of(one) == tag
    assert await tag_of(other) != tag, "it is made of what is stored alone, and can be guessed"
