"""What `pattern:ID` stands for is looked for within a place, as every question is."""

from __future__ import annotations

import pytest

from access.principal import ANYONE
from db.database import Database
from query.errors import TooManyScans
from query.patterns import PatternTexts
from query.places import FairPlaces
from store.patterns.reading import PatternReader


async def test_texts_of_patterns_are_looked_for_within_a_place_and_nothing_is_asked_without_need() -> None:
    places = FairPlaces(places=1, per_subject=1, waiting_max=0, waiting_per_subject_max=0)
    nowhere = Database("postgresql://127.0.0.1:1/nothing", application_name="never opened")
    texts = PatternTexts(PatternReader(nowhere, "logs"), lambda principal: places.place(principal.subject, wait_s=0.01))
    async with places.place("somebody else", wait_s=0.01):
        with pytest.raises(TooManyScans):
            await texts.of([("query", "pattern:5f2a77c01d9be630")], ANYONE, allowed=ANYONE.may_read)
        text_of = await texts.of([("query", "error")], ANYONE, allowed=ANYONE.may_read)
        assert text_of(1) is None
