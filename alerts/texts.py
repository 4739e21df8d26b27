"""Texts that people write into rules and silences. Pure."""

from __future__ import annotations


def check_text(text: str) -> None:
    """Raises ValueError for what the database takes in no text: one rule with such a one would keep all others of its files
    from being read, and be evaluated by nobody."""
    if "\0" in text:
        raise ValueError("U+0000 cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair cannot be stored") from error
