"""Finding a metadata field: which nestings the name a.b.c may mean (see predicate.MetaEquals)."""

from __future__ import annotations

from collections.abc import Iterator


def key_chains(path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The keys to follow, for each meaning: ("a", "b", "c"), ("a", "b.c") and ("a.b.c",) for ("a", "b", "c")."""
    for nested in reversed(range(len(path))):
        yield (*path[:nested], ".".join(path[nested:]))
