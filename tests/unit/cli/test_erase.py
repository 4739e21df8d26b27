"""What a certificate says of copies that an erasure does not reach."""

from __future__ import annotations

import pytest

from cli.erase import copies
from cli.settings import Settings


@pytest.mark.parametrize("kind", ["queue", "kafka"])
def test_everything_that_keeps_words_of_logs_is_named_with_its_end(kind: str) -> None:
    settings = Settings.model_validate(
        {
            "profile": "embedded" if kind == "queue" else "full",
            "database": {"url": "postgresql://localhost/logfeed"},
            "broker": {"kind": kind, "derived_retention_h": 36},
            "patterns": {"retention_days": 77},
            "store": {"retention_days": 555},
        }
    )
    named = {each.what: each.until for each in copies(settings)}
    for what, until in (
        ("derived topics", "36 hours"),
        ("alerts", "30 days"),
        ("patterns", "77 days"),
        ("connections", "555 days"),
        ("experiments", "555 days"),
        ("bookmarks", "disabled"),
    ):
        (found,) = [text for name, text in named.items() if what in name]
        assert until in found
    assert any("queue" in name if kind == "queue" else "logs.v1" in name for name in named)
