"""Which letters are the same letter: one frozen table, so that "case-insensitive" means the same for ever.

Engines disagree (PostgreSQL's `lower` in the C locale knows ASCII only, `str.lower` maps İ to two characters and looks at
context for Σ) and each follows the Unicode version it was built with. So the rule is ours:

- A character's lower case is its simple (one character to one character) lower-case mapping in Unicode 14.
- Except that ASCII letters pair with ASCII letters only: U+0130 (İ) and U+212A (the Kelvin sign) stay themselves. This is
  what lets an ASCII needle be found by comparing bytes, in every engine, without looking at Unicode at all.
- Two texts are equal without regard to case when they are equal after mapping each character. Nothing else is folded:
  ß is not ss, ς is not σ, and é written as two code points is not é written as one.

The table never changes, also when Unicode grows: a cursor or an alert rule must not change its meaning.
"""

from __future__ import annotations

import re
from typing import Final

# first-last/step+delta or single+delta, code points in hexadecimal; generated from Unicode 14's UnicodeData.txt.
_NON_ASCII: Final = """
    C0-D6/1+32 D8-DE/1+32 100-12E/2+1 132-136/2+1 139-147/2+1 14A-176/2+1 178-121 179-17D/2+1 181+210 182-184/2+1
    186+206 187+1 189-18A/1+205 18B+1 18E+79 18F+202 190+203 191+1 193+205 194+207 196+211 197+209 198+1 19C+211
    19D+213 19F+214 1A0-1A4/2+1 1A6+218 1A7+1 1A9+218 1AC+1 1AE+218 1AF+1 1B1-1B2/1+217 1B3-1B5/2+1 1B7+219 1B8+1
    1BC+1 1C4+2 1C5+1 1C7+2 1C8+1 1CA+2 1CB-1DB/2+1 1DE-1EE/2+1 1F1+2 1F2-1F4/2+1 1F6-97 1F7-56 1F8-21E/2+1 220-130
    222-232/2+1 23A+10795 23B+1 23D-163 23E+10792 241+1 243-195 244+69 245+71 246-24E/2+1 370-372/2+1 376+1 37F+116
    386+38 388-38A/1+37 38C+64 38E-38F/1+63 391-3A1/1+32 3A3-3AB/1+32 3CF+8 3D8-3EE/2+1 3F4-60 3F7+1 3F9-7 3FA+1
    3FD-3FF/1-130 400-40F/1+80 410-42F/1+32 460-480/2+1 48A-4BE/2+1 4C0+15 4C1-4CD/2+1 4D0-52E/2+1 531-556/1+48
    10A0-10C5/1+7264 10C7+7264 10CD+7264 13A0-13EF/1+38864 13F0-13F5/1+8 1C90-1CBA/1-3008 1CBD-1CBF/1-3008
    1E00-1E94/2+1 1E9E-7615 1EA0-1EFE/2+1 1F08-1F0F/1-8 1F18-1F1D/1-8 1F28-1F2F/1-8 1F38-1F3F/1-8 1F48-1F4D/1-8
    1F59-1F5F/2-8 1F68-1F6F/1-8 1F88-1F8F/1-8 1F98-1F9F/1-8 1FA8-1FAF/1-8 1FB8-1FB9/1-8 1FBA-1FBB/1-74 1FBC-9
    1FC8-1FCB/1-86 1FCC-9 1FD8-1FD9/1-8 1FDA-1FDB/1-100 1FE8-1FE9/1-8 1FEA-1FEB/1-112 1FEC-7 1FF8-1FF9/1-128
    1FFA-1FFB/1-126 1FFC-9 2126-7517 212B-8262 2132+28 2160-216F/1+16 2183+1 24B6-24CF/1+26 2C00-2C2F/1+48 2C60+1
    2C62-10743 2C63-3814 2C64-10727 2C67-2C6B/2+1 2C6D-10780 2C6E-10749 2C6F-10783 2C70-10782 2C72+1 2C75+1
    2C7E-2C7F/1-10815 2C80-2CE2/2+1 2CEB-2CED/2+1 2CF2+1 A640-A66C/2+1 A680-A69A/2+1 A722-A72E/2+1 A732-A76E/2+1
    A779-A77B/2+1 A77D-35332 A77E-A786/2+1 A78B+1 A78D-42280 A790-A792/2+1 A796-A7A8/2+1 A7AA-42308 A7AB-42319
    A7AC-42315 A7AD-42305 A7AE-42308 A7B0-42258 A7B1-42282 A7B2-42261 A7B3+928 A7B4-A7C2/2+1 A7C4-48 A7C5-42307
    A7C6-35384 A7C7-A7C9/2+1 A7D0+1 A7D6-A7D8/2+1 A7F5+1 FF21-FF3A/1+32 10400-10427/1+40 104B0-104D3/1+40
    10570-10594/2+39 10571-10579/2+39 1057D-10589/2+39 1058D-10591/2+39 10595+39 10C80-10CB2/1+64 118A0-118BF/1+32
    16E40-16E5F/1+32 1E900-1E921/1+34
"""
_ENTRY: Final = re.compile(r"([0-9A-F]+)(?:-([0-9A-F]+)/([12]))?([+-]\d+)")


def _lower_table() -> dict[int, int]:
    table = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
    for first, last, step, delta in _ENTRY.findall(_NON_ASCII):
        for upper in range(int(first, 16), int(last or first, 16) + 1, int(step or 1)):
            table[upper] = upper + int(delta)
    return table


LOWER: Final[dict[int, int]] = _lower_table()
"""Code point -> its lower case, for the 1,431 code points that differ from it."""


def _variants_table() -> dict[int, tuple[int, ...]]:
    classes: dict[int, list[int]] = {}
    for upper, lower in LOWER.items():
        classes.setdefault(lower, [lower]).append(upper)
    return {member: tuple(sorted(members)) for members in classes.values() for member in members}


VARIANTS: Final[dict[int, tuple[int, ...]]] = _variants_table()
"""Code point -> all code points with the same lower case, itself included, ascending; only where there are several."""


def fold(text: str) -> str:
    """The text with each character mapped to its lower case; as many characters as before."""
    return text.lower() if text.isascii() else text.translate(LOWER)


def is_bytewise(text: str) -> bool:
    """True when mapping only A-Z is enough to find the text: no letter outside ASCII in it has another case."""
    return text.isascii() or not any(ord(char) > 0x7F and ord(char) in VARIANTS for char in text)
