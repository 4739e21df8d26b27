"""Text of others where people read it: shown, never obeyed.

Log text may hold escape sequences that recolour, retitle or answer for a terminal, and marks that turn the direction of
reading. They are written out as escapes.
"""

from __future__ import annotations

from typing import Final

_BIDI: Final = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Unicode's bidirectional controls (UAX 9)."""
_SEPARATORS: Final = (0x2028, 0x2029, 0xFEFF)

_JSON_ESCAPES: Final = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *_BIDI, *_SEPARATORS)}
_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    code: f"\\u{code:04x}" for code in (*_BIDI, *_SEPARATORS, *range(0xD800, 0xE000))
}
_NAMED: Final = {0x09: "\t"}
_ONE_LINE: Final = _ESCAPES | _NAMED | {0x0A: "\\n", 0x0D: "\\r"}
_LINES: Final = _ESCAPES | _NAMED | {0x0A: "\n"}


def harmless(text: str, *, keep_newlines: bool = False) -> str:
    """The text with control characters, bidirectional marks and line separators written out; tabs stay.

    keep_newlines: keep line breaks as well; otherwise they are written as \\n.
    """
    return text.translate(_LINES if keep_newlines else _ONE_LINE)


def harmless_json(text: str) -> str:
    """JSON text that means the same and holds none of them (JSON itself escapes those below U+0020)."""
    return text.translate(_JSON_ESCAPES)
