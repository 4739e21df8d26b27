"""Varied log lines, made while they are sent: a body is never repeated, since repeated bodies flatter every compressor
and cache.

A `Mould` is one request body with holes. Everything that is dear to choose is chosen once, when the mould is made: which
services, levels, messages and metadata its lines have. The holes have a fixed width and are filled anew for each body from
the system's random source: a 128-bit correlation id a line, an order number in the metadata, and digits and hex digits of
the message. Filling is four calls into C for the whole body (one translation of random bytes, two `struct` unpackings, one
pick, one join): 0.45 µs a log of 350 bytes, where formatting line by line costs ten times that. So a run of any length
needs only the memory of its moulds. Lengths never change, hence neither does Content-Length.

Messages are of two kinds: templates of our own, and where ../shared/data lies beside the repository, real lines of six
systems in which numbers are holes. Timestamps are left out: a log happened when it was received.
"""

from __future__ import annotations

import binascii
import csv
import os
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from functools import cache
from itertools import count, cycle
from operator import itemgetter
from pathlib import Path
from struct import Struct
from typing import Any, Final

import orjson

from schemas.levels import parse_level

SERVICES: Final = tuple(f"{area}-{part}" for area in ("shop", "pay", "mail", "auth", "search") for part in "abcdefghi")
LEVEL_WEIGHTS: Final = {"TRACE": 20, "DEBUG": 180, "INFO": 680, "WARN": 100, "ERROR": 18, "FATAL": 2}
"""Level -> logs of 1,000: 2% are ERROR and above."""
ORDER_KEY: Final = "order"
"""Metadata key whose values are equally frequent: each stands in one of ORDER_VALUES logs."""
ORDER_VALUES: Final = 10_000
COMMON_WORDS: Final = ("connection", "replica", "timeout", "granted", "answered", "checkout")
"""Words of our own templates: each is in a few of a hundred messages."""
LOGS_PER_REQUEST: Final = 1_000
REAL_LINES: Final = Path(__file__).resolve().parents[2] / "shared" / "data"

_REAL_SHARE: Final = 0.5
_REAL_HOLES_MAX: Final = 3
"""Numbers of a real line that change: the correlation id alone makes a line new, and each hole costs 0.05 µs."""
_HOLE: Final = re.compile(r"\{([dh])(\d+)\}")
_VARYING: Final = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{12,}(?![0-9A-Za-z])|\d{2,}")
_DIFFERENT: Final = re.compile(rb"[^\0]+")
_HEX_DIGITS: Final = b"0123456789abcdef"
_TO_DIGITS: Final = bytes(ord("0") + value % 10 for value in range(256))
# {d3}: three random digits, {h8}: eight random hex digits.
_TEMPLATES: Final = (
    "GET /v1/items/4{d6}?page={d2} answered 200 in {d3}.{d2} ms for client 10.20.3.7",
    "POST /v1/orders answered 201 in {d3} ms, order {h12} with 3 positions, total 1{d2}.{d2} EUR",
    "checkout of basket {h16} granted: payment 7{d6} by card, risk 0.{d2}",
    "payment provider answered 402 after {d3} ms: card of customer c-{d6} declined, asking for another",
    "Received block blk_{h16} of size {d6} from /10.251.73.220",
    "Verification succeeded for blk_{h16} after {d3} ms on every replica",
    "instance {h16}: creating image, took {d2}.{d2} seconds to build on host node-17",
    "pam_unix(sshd:auth): check pass; user unknown from 192.0.2.44 port 5{d4}",
    "Accepted publickey for deploy from 192.0.2.17 port 4{d4} ssh2: SHA256:{h32}",
    "Connection request from old client /10.34.11.9:4{d4}; will be dropped if server is in r-o mode",
    "Task attempt_{h12}_{d4} transitioned from RUNNING to SUCCEEDED, progress 1.0",
    "cache miss for key user:{d6}:profile, loaded {d2} rows in {d3} ms from replica 2",
    "lease on partition {d2} granted to worker-{d4} until epoch {d6}, fencing token {h8}",
    "upstream inventory: timeout after 3{d3} ms, retry 2 of 5 in {d3} ms, circuit half open",
    "connection pool: 1{d1} of 20 in use, waited {d3} ms for session {h12}",
    "mail {h16} to {h8}@example.com queued at relay-3, size 1{d4}, delay {d2} s",
    "login of user u{d6} granted from 198.51.100.23, second factor totp, session {h16}",
    "token {h16} expired {d3} s ago, answered 401 to client app-{d4}",
    "index shard 1{d1} merged {d4} documents in {d3} ms, {d6} bytes freed",
    "query plan {h8}: 3 tables, est. rows {d6}, buffer hits {d5}, took {d3} ms",
)


class Form(Enum):
    """How a line is written."""

    HTTP = "http"
    """A JSON object, as producers send it."""
    FRAME = "frame"
    """A JSON array, as it lies in a frame (schemas/record.py); id and timestamp are 0."""


class Mould:
    """A request body with holes; see the module."""

    def __init__(self, lines: Sequence[str]) -> None:
        """lines: JSON text with {dN} and {hN} for holes, none of it with a line end. Joined by line ends."""
        self._fill(_pieces("\n".join(lines)), len(lines))

    @classmethod
    def of_bodies(cls, bodies: Sequence[bytes], logs: int) -> Mould:
        """From bodies of any format that were made of the same mould: holes are where they differ. bodies: of one length, and
        enough of them that no place has the same byte in all by chance."""
        made = cls.__new__(cls)
        made._fill(_differences(bodies), logs)
        return made

    def _fill(self, pieces: Iterable[bytes | tuple[str, int]], logs: int) -> None:
        texts: list[bytes] = []
        widths: dict[str, list[int]] = {"d": [], "h": [], "r": []}
        order: list[tuple[str, int]] = []
        for piece in pieces:
            if isinstance(piece, bytes):
                order.append(("t", len(texts)))
                texts.append(piece)
            else:
                kind, width = piece
                order.append((kind, len(widths[kind])))
                widths[kind].append(width)
        hexes, digits = len(widths["h"]), len(widths["d"])
        starts = {"t": 0, "h": len(texts), "d": len(texts) + hexes, "r": len(texts) + hexes + digits}
        self._texts = tuple(texts)
        self._hex, self._digits, self._raw = (
            Struct("".join(f"{width}s" for width in widths[kind])) for kind in ("h", "d", "r")
        )
        self._hex_bytes = (self._hex.size + 1) // 2
        self._pick = itemgetter(*(starts[kind] + index for kind, index in order))
        self.logs = logs
        self.size_bytes = sum(map(len, texts)) + self._hex.size + self._digits.size + self._raw.size

    def body(self) -> bytes:
        """A new body of `logs` lines and `size_bytes` bytes. Measured: 0.45 µs a log."""
        hex_digits = self._hex.unpack_from(binascii.hexlify(os.urandom(self._hex_bytes)))
        digits = self._digits.unpack(os.urandom(self._digits.size).translate(_TO_DIGITS))
        raw = self._raw.unpack(os.urandom(self._raw.size))
        return b"".join(self._pick(self._texts + hex_digits + digits + raw))


def moulds(how_many: int, *, logs: int = LOGS_PER_REQUEST, seed: int = 1, form: Form = Form.HTTP) -> list[Mould]:
    """Moulds of `logs` lines each; the same seed gives the same moulds (their bodies differ all the same)."""
    chance = random.Random(seed)
    real = _real_messages()
    return [Mould([_line(chance, real, form) for _ in range(logs)]) for _ in range(how_many)]


def bodies(of: Sequence[Mould]) -> Iterator[bytes]:
    """Bodies for ever, from each mould in turn."""
    for mould in cycle(of):
        yield mould.body()


def single_lines(of: Sequence[Mould]) -> Iterator[bytes]:
    """Lines for ever, one at a time."""
    for body in bodies(of):
        yield from body.split(b"\n")


def marked_lines(marker: str, *, service_name: str) -> Iterator[bytes]:
    """Lines for ever whose correlation id is the marker and a number: to be found again."""
    for number in count():
        yield orjson.dumps(
            {
                "service_name": service_name,
                "level": "INFO",
                "message": f"marker {number} sent",
                "correlation_id": f"{marker}-{number}",
            }
        )


def _pieces(text: str) -> Iterator[bytes | tuple[str, int]]:
    end = 0
    for hole in _HOLE.finditer(text):
        if hole.start() > end:
            yield text[end : hole.start()].encode()
        yield hole[1], int(hole[2])
        end = hole.end()
    if end < len(text):
        yield text[end:].encode()


def _differences(bodies: Sequence[bytes]) -> Iterator[bytes | tuple[str, int]]:
    """The first body, with holes where others differ from it: of digits, hex digits or any bytes, as they were found there."""
    first, numbers = bodies[0], [int.from_bytes(body) for body in bodies]
    differing = 0
    for number in numbers:
        differing |= number ^ numbers[0]
    end = 0
    for run in _DIFFERENT.finditer(differing.to_bytes(len(first))):
        if run.start() > end:
            yield first[end : run.start()]
        found = b"".join(body[run.start() : run.end()] for body in bodies)
        kind = "d" if found.isdigit() else "r" if found.translate(None, _HEX_DIGITS) else "h"
        yield kind, run.end() - run.start()
        end = run.end()
    if end < len(first):
        yield first[end:]


def _line(chance: random.Random, real: Sequence[str], form: Form) -> str:
    message = chance.choice(real if real and chance.random() < _REAL_SHARE else _TEMPLATES)
    service, level = chance.choice(SERVICES), _level(chance)
    correlation_id = "{h32}"
    metadata = {
        "host": f"node-{chance.randrange(256)}",
        "region": chance.choice(("eu-1", "eu-2", "us-1")),
        ORDER_KEY: "o-{d4}",
        "path": f"/v1/{chance.choice(('items', 'orders', 'users', 'carts'))}/{chance.randrange(500)}",
        "client": f"10.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)}",
        "duration_ms": chance.randrange(2_000),
        "build": f"2026.11.{chance.randrange(30)}",
    }
    if form is Form.FRAME:
        return _json([0, 0, parse_level(level), service, message, correlation_id, metadata])
    return _json(
        {
            "service_name": service,
            "level": level,
            "message": message,
            "correlation_id": correlation_id,
            "metadata": metadata,
        }
    )


def _json(value: Any) -> str:  # Any: JSON
    return orjson.dumps(value).decode()


def _level(chance: random.Random) -> str:
    return chance.choices(tuple(LEVEL_WEIGHTS), tuple(LEVEL_WEIGHTS.values()))[0]


@cache
def _real_messages() -> tuple[str, ...]:
    """Messages of the real lines, with holes for numbers and long hex words; none where the data is not there."""
    messages: set[str] = set()
    for path in sorted(REAL_LINES.glob("*_structured.csv")):
        with path.open(newline="", errors="replace") as file:
            for row in csv.DictReader(file):
                content = row["Content"].replace("{", "(").replace("}", ")")
                messages.add(_with_holes(content))
    return tuple(sorted(messages))


def _with_holes(content: str) -> str:
    """The longest numbers and hex words become holes; a number's first digit stays, so that its size does."""
    longest = sorted(_VARYING.finditer(content), key=lambda found: found.start() - found.end())[:_REAL_HOLES_MAX]
    places = {found.start(): found for found in longest}
    text, end = "", 0
    for start in sorted(places):
        word = places[start][0]
        hole = f"{word[0]}{{d{len(word) - 1}}}" if word.isdecimal() else f"{{h{len(word)}}}"
        text += content[end:start] + hole
        end = start + len(word)
    return text + content[end:]
