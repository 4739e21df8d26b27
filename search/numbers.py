"""Numbers in queries: exact decimals, so that 2^63 and 2^63 + 1 differ and 0.1 is one tenth.

Stored metadata holds JSON numbers: integers of any length, and doubles written with the fewest digits that identify
them. Both sides are compared as the decimal numbers they are written as: 1.0 = 1 = 1e0, 0.1 = 0.10, -0 = 0. PostgreSQL
has that type (numeric); Python and DuckDB compare doubles and settle the rare tie exactly.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

NUMBER_CHARS_MAX: Final = 100
EXPONENT_MAX: Final = 1_000
"""Greatest power of ten, up or down, of a number in a query: far inside what every engine holds."""

_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,6})?")


def parse_number(text: str) -> Decimal | None:
    """The exact value of a JSON number (RFC 8259), or None when the text is none or is past the limits."""
    if len(text) > NUMBER_CHARS_MAX or _JSON_NUMBER.fullmatch(text) is None:
        return None
    number = Decimal(text)
    return number if is_in_limits(number) else None


def is_in_limits(number: Decimal) -> bool:
    """True for a finite number of at most 100 digits between 1e-1000 and 1e1000 in size, and for zero."""
    if not number.is_finite():
        return False
    _, digits, _ = number.as_tuple()
    return number.is_zero() or (len(digits) <= NUMBER_CHARS_MAX and abs(number.adjusted()) <= EXPONENT_MAX)


def is_plain(number: Decimal) -> bool:
    """True when no stored number but an equal one has the same nearest double: doubles alone decide then.

    Stored numbers are integers or the shortest spelling of a double. So it is true of numbers that are the shortest
    spelling of theirs, up to 2^53, from where on integers share doubles.
    """
    return abs(number) < 2**53 and Decimal(repr(float(number))) == number


def normal_form(number: Decimal) -> tuple[int, int, str]:
    """(sign -1/0/1, point, digits) with |number| = 0.digits * 10^point and no zero at either end of the digits.

    Equal numbers have equal forms; of two positive numbers the greater has the greater (point, digits).
    """
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int), "only finite numbers are in predicates"
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return 0, 0, ""
    return (-1 if sign else 1), len(text) + exponent, text.rstrip("0")


def json_text(number: Decimal) -> str:
    """The number as JSON, the same for equal numbers."""
    sign, point, digits = normal_form(number)
    return f"{'-' if sign < 0 else ''}{digits}e{point - len(digits)}" if digits else "0"
