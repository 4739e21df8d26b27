"""The lines of a pattern (package patterns) as a predicate: what `pattern:"job <num> done"` compiles to."""

from __future__ import annotations

from patterns.expression import expression_of
from search.predicate import Matches
from search.regex import parse_pattern


def lines_of(text: str) -> Matches:
    """The messages that a pattern's text describes, as a regular expression anchored at both ends.

    Raises patterns.expression.InvalidPattern for a text that no pattern has.
    """
    return Matches(parse_pattern(expression_of(text)))
