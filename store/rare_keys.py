"""Which keys of metadata have rare values, as this process has seen: whoever asks by one of these asks the index at once.

The first look at a window tells how rare a value is, and costs a third of the whole page. A key's values are much alike: after
a few questions by rare ones the next is taken for rare without a look. Taken wrongly, it costs the short time that an index
then gets (store/page_scan.py), and the key has to prove itself for longer than before.

Bounded: KEYS_MAX sets of keys, those not asked for longest are forgotten. Pure; one process's own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Final

KEYS_MAX: Final = 200
_RARE_ENOUGH: Final = 3
"""Rare values in a row after which the next is taken for rare."""
_MOST: Final = 8
_WRONG: Final = -16
"""After a wrong guess so many more have to be rare."""


class RareKeys:
    """Counts, for each set of keys that a question is asked by, how many values in a row were rare."""

    def __init__(self) -> None:
        self._in_a_row: OrderedDict[frozenset[str], int] = OrderedDict()

    def expects(self, keys: Collection[str]) -> bool:
        """Whether the next value of these keys is likely to be rare."""
        return self._in_a_row.get(frozenset(keys), 0) >= _RARE_ENOUGH

    def saw(self, keys: Collection[str], *, is_rare: bool) -> None:
        """A look, or what an index found, has told."""
        before = self._in_a_row.get(frozenset(keys), 0)
        self._note(keys, min(before + 1, _MOST) if is_rare else min(before, 0))

    def was_wrong(self, keys: Collection[str]) -> None:
        """The index did not answer in the time that a guess gets."""
        self._note(keys, _WRONG)

    def _note(self, keys: Collection[str], in_a_row: int) -> None:
        self._in_a_row[frozenset(keys)] = in_a_row
        self._in_a_row.move_to_end(frozenset(keys))
        while len(self._in_a_row) > KEYS_MAX:
            self._in_a_row.popitem(last=False)
