"""Logs to send, and what must be found of them again, told without the product's own parsers and matchers.

Generated ones come from templates of ours; real ones from files of six systems, whose published structured tables say what
each line's message, level and fields are. The predicates at the end are the plain reading of docs/query-language.md.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SECOND_US: Final = 1_000_000
HOUR_US: Final = 3_600 * SECOND_US
DAY_US: Final = 24 * HOUR_US
MESSAGE_BYTES_MAX: Final = 256 * 1024

SERVICES: Final = ("gateway", "auth", "orders", "payments/card", "payments/bank", "mail")
SEVERITIES: Final = {"TRACE": 1, "DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17, "FATAL": 21}
RARE: Final = "quokka-7f3a"
"""In exactly one generated message."""


@dataclass(frozen=True)
class Expected:
    """A log as it must be found. source: the line or JSON text that was sent."""

    service_name: str
    timestamp_us: int
    severity: int
    message: str
    correlation_id: str | None
    metadata: dict[str, Any]  # any JSON
    source: str = ""

    @cached_property
    def folded(self) -> str:
        """The message as text search sees it."""
        return fold(self.message)

    @cached_property
    def identity(self) -> tuple[str, int, int, str, str | None, str]:
        """Everything that must be found again, comparable."""
        fields = json.dumps(_plain_numbers(self.metadata), sort_keys=True)
        return (self.service_name, self.timestamp_us, self.severity, self.message, self.correlation_id, fields)

    @property
    def level(self) -> str:
        """Name of the severity's band."""
        return max(
            (name for name in SEVERITIES if SEVERITIES[name] <= self.severity), key=lambda name: SEVERITIES[name]
        )


@dataclass(frozen=True)
class Sendable:
    """A log for POST: its JSON text, and what must be found of it."""

    text: str
    expected: Expected


# --- generated --------------------------------------------------------------------------------------------------------

_TEMPLATES: Final = {
    "gateway": ("GET /api/v1/items/{n} took {ms} ms", "upstream timeout after {ms} ms", "POST /checkout 100% done"),
    "auth": ("login of user_{n} refused", "token for user%{n} renewed", "two words  apart {n}"),
    "orders": ("order {n} placed", 'order "{n}" \\ cancelled: it\'s late', "stock of a_b fell to {n}", "axb {n}"),
    "payments/card": ("payment refused after {ms} ms", "Payment REFUSED: limit of {n}", "payment declined {n}"),
    "payments/bank": ("payment settled in {ms} ms", "connection refused by 10.0.0.{n}:443", "retry {n} of 5"),
    "mail": ("mail {n} queued", "mail {n} bounced: user unknown", "line one {n}\nline two\tand a tab"),
}
_ODD_TEXTS: Final = (
    "ÉCLAIR café",
    "Σίσυφος ς",
    "İstanbul ıĞ",
    "groß STRASSE ẞ",
    "K elvin K",
    "e\u0301 and é",
    "日本語のログ 𠮷野家",
    "🦘👩‍👩‍👧‍👦 jumped",
    "\u202eright to left\u202c مرحبا",
    "zero\u200bwidth\u2060joined",
    "\u2028line and\u2029paragraph",
    "\ufeffmark inside \ufeff",
    "null \u0000 byte",
    "\x1b[31mred\x1b[0m \x07\x7f",
    "%s %d {0} $1 $$ %%",
    "'; DROP TABLE logs; --",
    "ﬀ ﬁ Ǆ ǅ ǆ",
    "\U0010fffd private \ue000",
    " leading and trailing ",
    "\\ % _ \\% \\_",
)
_METADATA: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"user": "ada", "attempts": 3, "ratio": 0.1, "ok": True, "none": None},
    {"user": "Ada", "code": 200, "ok": False},
    {"code": "200", "user": "Ada Lovelace"},
    {"code": 200.5, "empty": "", "list": [1, "two", None, {"three": 3}]},
    {"http": {"status": 503, "path": "/a/b"}},
    {"http.status": 503},
    {"a": {"b": {"c": "deep"}}},
    {"a": {"b.c": "deep"}},
    {"a.b.c": "deep"},
    {"a": {"b": {"c": "other"}}, "a.b.c": "deep"},
    {"big": 2**70, "negative": -7, "exp": 1e22, "small": 1e-7, "max": 2**63 - 1},
    {"big": 2**63, "zero": 0, "float": 1.0},
    {"ключ": "значение", "key with space": "x", "": "empty key", "emoji": "🦘"},
    {"quote": 'say "hi" \\ %_', "nul": "a\u0000b", "html": "<b>&amp;</b>", "user": "' OR 1=1 --"},
    {"nest": {"1": {"2": {"3": {"4": {"5": [[[{}]]]}}}}}, "object": {}, "array": []},
    {"experiment_id": "exp-42"},
    {"connection_id": 1001},
)


def generated(now_us: int, *, count: int = 3_000, seed: int = 1) -> list[Sendable]:
    """Logs of stories that cross services, most of them of the last hours, some of the last year; all of the past."""
    chance = random.Random(seed)
    logs: list[Sendable] = []
    while len(logs) < count:
        logs += _story(len(logs), now_us, chance)
    return logs[:count]


def post(expected: Expected, *, level: object = None, timestamp: object = None, ascii_only: bool = False) -> Sendable:
    """The log as a producer sends it. level, timestamp: other spellings of the same."""
    sent: dict[str, Any] = {
        "service_name": expected.service_name,
        "timestamp": timestamp or iso(expected.timestamp_us),
        "level": level or expected.level,
        "message": expected.message,
    }
    if expected.correlation_id is not None:
        sent["correlation_id"] = expected.correlation_id
    if expected.metadata:
        sent["metadata"] = expected.metadata
    text = json.dumps(sent, ensure_ascii=ascii_only)
    return Sendable(text, replace(expected, source=text))


def _story(first: int, now_us: int, chance: random.Random) -> Iterator[Sendable]:
    age_us = (
        int(chance.choice((16 * HOUR_US, 16 * HOUR_US, 3 * DAY_US, 390 * DAY_US)) * chance.random()) + 60 * SECOND_US
    )
    moment_us = now_us - age_us
    spellings = ("{:032x}", "story/{:x} ü?&#", "{:d}", "Req-{:X}")
    correlation_id = chance.choice(spellings).format(chance.getrandbits(100)) if chance.random() < 0.9 else None
    for number in range(first, first + chance.randint(1, 14)):
        moment_us += chance.choice((0, 0, 1, 999, 20_000))
        yield _log(number, min(moment_us, now_us), correlation_id, chance)


def _log(number: int, moment_us: int, correlation_id: str | None, chance: random.Random) -> Sendable:
    service = chance.choice(SERVICES)
    message = chance.choice(_TEMPLATES[service]).format(n=number, ms=chance.randint(1, 9_999))
    if number % 9 == 0:
        message = f"{_ODD_TEXTS[number // 9 % len(_ODD_TEXTS)]} {number}"
    if number == 1_234:
        message = f"a {RARE} was seen"
    fields = dict(_METADATA[number % len(_METADATA)])
    severity = chance.choice((1, 5, 5, 9, 9, 9, 9, 10, 13, 13, 17, 17, 18, 21))
    level, at = _spelled(severity, chance), _spelled_time(moment_us, chance)
    sent = Expected(service, moment_us, severity, message, correlation_id, {"n": number, **fields})
    sendable = post(sent, level=level, timestamp=at, ascii_only=chance.random() < 0.5)
    correlation_id = correlation_id or fields.get("experiment_id") or fields.get("connection_id")
    found = replace(
        sendable.expected,
        message=message.replace("\0", "\ufffd"),
        correlation_id=None if correlation_id is None else str(correlation_id),
        metadata={key: v.replace("\0", "\ufffd") if isinstance(v, str) else v for key, v in sent.metadata.items()},
    )
    return Sendable(sendable.text, found)


def _spelled(severity: int, chance: random.Random) -> object:
    names = {1: ("TRACE", "trace"), 5: ("DEBUG", "dbg"), 9: ("INFO", "info", "notice"), 13: ("WARN", "Warning")}
    more = {17: ("ERROR", "err", "severe"), 21: ("FATAL", "critical", "PANIC")}
    return chance.choice(({**names, **more}.get(severity, ()), ())[0] + (severity,))


def _spelled_time(us: int, chance: random.Random) -> object:
    moment = EPOCH + timedelta(microseconds=us)
    india = moment.astimezone(timezone(timedelta(hours=5, minutes=30)))
    return chance.choice((iso(us), india.isoformat(), us, str(us), moment.replace(tzinfo=None).isoformat()))


def long_message(now_us: int) -> Sendable:
    """A message past 256 KiB, with a character of two bytes across the border."""
    message = "x" + "é" * 140_000
    sendable = post(Expected("gateway", now_us - HOUR_US, 9, message, None, {"long": True}))
    kept = message.encode()[:MESSAGE_BYTES_MAX].decode(errors="ignore")
    return replace(
        sendable, expected=replace(sendable.expected, message=kept, metadata={"long": True, "_truncated": True})
    )


# --- hostile and extreme ones -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hostile:
    """An item that is refused. service: under which the ledger books it."""

    text: bytes
    code: str
    service: str = "hostile"


def _item(message: bytes = b'"m"', more: bytes = b"") -> bytes:
    return b'{"service_name":"hostile","message":%b%b}' % (message, more)


def _metadata(text: bytes) -> bytes:
    return _item(more=b',"metadata":{"x":%b}' % text)


def _at(text: bytes) -> bytes:
    return _item(more=b',"timestamp":%b' % text)


HOSTILE: Final = {
    "depth 100,000": Hostile(_metadata(b"[" * 100_000 + b"]" * 100_000), "json", ""),
    "depth 17": Hostile(_metadata(b"[" * 16 + b"]" * 16), "metadata"),
    "raw NUL": Hostile(_item(b'"\x00"'), "json", ""),
    "lone surrogate": Hostile(_item(b'"\\ud800"'), "json", ""),
    "invalid UTF-8": Hostile(_item(b'"\xff"'), "message"),
    "surrogate in UTF-8": Hostile(_item(b'"\xed\xa0\x80"'), "message"),
    "NaN": Hostile(_metadata(b"NaN"), "json", ""),
    "1e400": Hostile(_metadata(b"1e400"), "metadata"),
    "5,000 digits": Hostile(_metadata(b"9" * 5_000), "metadata"),
    "10,000 keys": Hostile(_metadata(b"{%b}" % b",".join(b'"%d":1' % n for n in range(10_000))), "metadata"),
    "key of 1 MB": Hostile(_item(more=b',"metadata":{"%b":1}' % (b"k" * 1_000_000)), "metadata"),
    "field of 1 MB": Hostile(_item(more=b',"%b":1' % (b"k" * 1_000_000)), "unknown_field"),
    "no object": Hostile(b"17", "json", ""),
    "cut off": Hostile(_item()[:-4], "json", ""),
    "year 1": Hostile(_at(b'"0001-01-01T00:00:00Z"'), "timestamp"),
    "year 9999": Hostile(_at(b'"9999-12-31T23:59:59Z"'), "timestamp"),
    "negative time": Hostile(_at(b"-1"), "timestamp"),
    "time past all years": Hostile(_at(b"1e300"), "timestamp"),
    "no time": Hostile(_at(b'"soon"'), "timestamp"),
    "an hour ahead": Hostile(_at(b'"now"').replace(b"now", b"2999-01-01T00:00:00Z"), "timestamp"),
}
"""Each is refused for itself, with a reason."""


def extreme(now_us: int) -> list[Sendable]:
    """Logs at the edge of what is taken."""
    deep: Any = "bottom"
    for _ in range(15):
        deep = [deep]
    nanoseconds = f'{{"service_name":"extreme","message":"in ns","timestamp":{now_us * 1_000 + 999}}}'
    twice = f'{{"service_name":"x","service_name":"extreme","message":"twice","timestamp":{now_us},"metadata":{{"k":1,"k":2}}}}'
    return [
        post(Expected("extreme", now_us, 9, "deep", None, {"x": deep})),
        post(Expected("extreme", now_us, 9, "keys", None, {str(n): n for n in range(4_000)})),
        post(Expected("extreme", now_us, 9, "key", None, {"k" * 65_000: 1})),
        post(Expected("extreme", now_us, 9, "digits", None, {"x": int("9" * 4_300)})),
        post(Expected("extreme", now_us, 9, "é" * 131_072, "c" * 128, {})),
        post(Expected("e" * 100, now_us, 9, "", None, {})),
        Sendable(nanoseconds, Expected("extreme", now_us, 9, "in ns", None, {})),
        Sendable(twice, Expected("extreme", now_us, 9, "twice", None, {"k": 2})),
        Sendable(
            f'{{"service_name":"extreme","message":"a\\u0000b","timestamp":{now_us},"metadata":{{"k\\u0000":"\\u0000"}}}}',
            Expected("extreme", now_us, 9, "a\ufffdb", None, {"k\ufffd": "\ufffd"}),
        ),
    ]


# --- real lines -------------------------------------------------------------------------------------------------------

SYSTEMS: Final = ("Apache", "HDFS", "Hadoop", "OpenSSH", "OpenStack", "Zookeeper")
REQUEST_ID: Final = re.compile(r"req-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LEVEL_WORDS: Final = {"notice": "INFO", "warning": "WARN"}
_Row = dict[str, str]


def real(directory: Path, system: str, service: str, now_us: int) -> list[Expected]:
    """The logs of a system's file with the times in its lines (UTC; without a year: the nearest past), in its order."""
    text = (directory / f"{system}_2k.log").read_bytes().decode()
    lines = [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]
    with (directory / f"{system}_2k_structured.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(lines) == len(rows) == 2_000
    return [_real(system, line, row, service, now_us) for line, row in zip(lines, rows, strict=True)]


def _real(system: str, line: str, row: _Row, service: str, now_us: int) -> Expected:
    content = row["Content"].strip()
    message = line[line.rstrip().rindex(content) :]
    fields = _FIELDS[system](row)
    if client := re.match(r"\[client ([^]]+)\] ", message):
        fields["client"], message = client[1], message[client.end() :]
    word = row.get("Level") or content.partition(": ")[0]
    level = _LEVEL_WORDS.get(word.lower(), word.upper())
    if level not in SEVERITIES:
        assert system == "OpenSSH"
        level = "INFO"
    request = REQUEST_ID.search(line)
    moment_us = _moment_us(system, row, now_us)
    return Expected(service, moment_us, SEVERITIES[level], message, request and request[0], fields, source=line)


_FIELDS: Final[dict[str, Callable[[_Row], dict[str, Any]]]] = {
    "Apache": lambda row: {},
    "HDFS": lambda row: {"pid": row["Pid"], "logger": row["Component"]},
    "Hadoop": lambda row: {"thread": row["Process"], "logger": row["Component"]},
    "OpenSSH": lambda row: {"host": row["Component"], "process": "sshd", "pid": row["Pid"]},
    "OpenStack": lambda row: {
        "file": row["Logrecord"],
        "pid": row["Pid"],
        "logger": row["Component"],
        **({"context": owner} if (owner := row["ADDR"].partition(" ")[2]) not in ("", "- - - - -") else {}),
    },
    "Zookeeper": lambda row: {"thread": f"{row['Node']}:{row['Component']}@{row['Id']}"},
}


def _moment_us(system: str, row: _Row, now_us: int) -> int:
    match system:
        case "Apache":
            return _read(row["Time"], "%a %b %d %H:%M:%S %Y")
        case "HDFS":
            return _read(f"{row['Date']} {row['Time'].zfill(6)}", "%y%m%d %H%M%S")
        case "OpenSSH":
            year = (EPOCH + timedelta(microseconds=now_us)).year
            text, form = f"{row['Date']} {row['Day']} {row['Time']}", "%Y %b %d %H:%M:%S"
            this_year = _read(f"{year} {text}", form)
            return this_year if this_year <= now_us else _read(f"{year - 1} {text}", form)
        case _:
            return _read(f"{row['Date']} {row['Time'].replace(',', '.')}", "%Y-%m-%d %H:%M:%S.%f")


def _read(text: str, form: str) -> int:
    return micros(datetime.strptime(text, form).replace(tzinfo=UTC))


# --- questions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """Parameters of a search, and which logs they mean."""

    parameters: dict[str, Any]
    keep: Callable[[Expected], bool]


def questions(logs: Sequence[Expected]) -> list[Question]:
    """Every filter, alone and with others. logs: all there are, for times that fall on some of them."""
    return [
        *_service_and_level_questions(),
        *_time_questions(sorted(log.timestamp_us for log in logs)),
        *(Question({"q": text}, with_text(text)) for text in _TEXTS),
        *(Question({"regex": pattern}, _matching(pattern)) for pattern in _PATTERNS),
        *(Question({f"metadata.{path}": text}, _with_field(path, text)) for path, text in _FIELD_TEXTS),
        *_LANGUAGE,
        *_mixed_questions(logs),
    ]


def of_services(*services: str) -> Callable[[Expected], bool]:
    """Logs of these services, or of these prefixes."""
    prefixes = tuple(name.removesuffix("*") for name in services if name.endswith("*"))
    return lambda log: log.service_name in services or (bool(prefixes) and log.service_name.startswith(prefixes))


def of_story(correlation_id: str) -> Callable[[Expected], bool]:
    """Logs with this correlation id."""
    return lambda log: log.correlation_id == correlation_id


def _leveled(*names: str) -> Callable[[Expected], bool]:
    return lambda log: log.level in names


def _from_level(name: str) -> Callable[[Expected], bool]:
    return lambda log: log.severity >= SEVERITIES[name]


def with_text(text: str) -> Callable[[Expected], bool]:
    """Logs whose message contains the text."""
    return lambda log: contains(log, text)


def _matching(pattern: str) -> Callable[[Expected], bool]:
    compiled = re.compile(pattern, re.ASCII | re.DOTALL)
    return lambda log: compiled.search(log.message) is not None


def _with_field(path: str, text: str) -> Callable[[Expected], bool]:
    return lambda log: field_equals(log, path, text)


def _service_and_level_questions() -> Iterator[Question]:
    yield Question({}, lambda log: True)
    for name in (*SERVICES, "shifted/Apache", "kept", "absent"):
        yield Question({"service_name": name}, of_services(name))
    for names in (["auth", "mail"], ["payments/*"], ["payments/*", "shifted/HDFS", "absent"]):
        yield Question({"service_name": names}, of_services(*names))
    for level in SEVERITIES:
        yield Question({"level": level}, _leveled(level))
    for level in ("WARN", "ERROR", "FATAL"):
        yield Question({"min_level": level}, _from_level(level))
    yield Question({"level": ["warning", "fatal"]}, _leveled("WARN", "FATAL"))
    both = {"level": "ERROR", "service_name": ["orders", "shifted/Hadoop"]}
    yield Question(both, lambda log: log.level == "ERROR" and log.service_name in ("orders", "shifted/Hadoop"))


def _time_questions(times: list[int]) -> Iterator[Question]:
    early, late = times[len(times) // 3], times[len(times) * 2 // 3]
    yield Question({"start_time": iso(late)}, lambda log: log.timestamp_us >= late)
    yield Question({"end_time": iso(early)}, lambda log: log.timestamp_us < early)
    between = {"start_time": iso(early), "end_time": iso(late)}
    yield Question(between, lambda log: early <= log.timestamp_us < late)
    instant = {"start_time": iso(late), "end_time": iso(late + 1)}
    yield Question(instant, lambda log: log.timestamp_us == late)
    some = {"start_time": iso(times[0]), "end_time": iso(late), "min_level": "ERROR"}
    yield Question(some, lambda log: log.timestamp_us < late and log.severity >= 17)


_TEXTS: Final = (
    *("refused", RARE, RARE.upper(), "no such text anywhere", "payment refused", "two words  apart", "two words apart"),
    *("100%", "%", "_", "a_b", "user_1", "user%1", "\\", '"', "'", "it's late", "\\ %", "one", "\nline two\tand"),
    *(
        "CAFÉ",
        "ÉCLAIR",
        "σίσυφοσ",
        "σ",
        "ς",
        "ß",
        "ss",
        "strasse",
        "istanbul",
        "İSTANBUL",
        "kelvin",
        "k elvin",
        "K elvin",
    ),
    *(
        "é",
        "e\u0301",
        "ログ",
        "𠮷",
        "👩‍👧",
        "مرحبا",
        "\u200b",
        "\u2028",
        "\ufeff",
        "\ufffd",
        "\x1b[31m",
        "%s %d {0}",
        "drop table",
    ),
    *("ﬁ", "ǆ", "\U0010fffd", "  "),
)
_PATTERNS: Final = (
    *(r"took [0-9]{4} ms", "(?i)payment (refused|declined)", "^payment", r"\bretry\b \d of 5$", "^$", r"100%|a_b|\\"),
    *(
        "É|日本",
        "[^\\x01-\\x7f]",
        r"two\tand",
        r"one \d+.line",
        r"^.{3}$",
        r"blk_-?\d+ terminating$",
        r"(error|fatal): ",
    ),
)
_FIELD_TEXTS: Final = (
    *(
        ("user", "ada"),
        ("user", "Ada Lovelace"),
        ("user", "' OR 1=1 --"),
        ("code", "200"),
        ("code", "200.0"),
        ("code", "200.5"),
    ),
    *(
        ("ok", "true"),
        ("ok", "false"),
        ("none", "null"),
        ("empty", ""),
        ("zero", "0"),
        ("float", "1"),
        ("negative", "-7.0"),
    ),
    *(("a.b.c", "deep"), ("a.b.c", "other"), ("http.status", "503"), ("nest.1", "x"), ("list", "1"), ("absent", "1")),
    *(
        ("big", str(2**70)),
        ("big", str(2**63)),
        ("max", str(2**63 - 1)),
        ("max", str(2**63)),
        ("exp", "1e22"),
        ("small", "1e-7"),
    ),
    *(
        ("n", "1234"),
        ("pid", "24200"),
        ("process", "sshd"),
        ("logger", "dfs.FSNamesystem"),
        ("quote", 'say "hi" \\ %_'),
    ),
)
_LANGUAGE: Final = tuple(
    Question({"query": query}, keep)
    for query, keep in (
        ("refused -payment", lambda log: contains(log, "refused") and not contains(log, "payment")),
        ("timeout OR bounced", lambda log: contains(log, "timeout") or contains(log, "bounced")),
        ('"user unknown" mail', lambda log: contains(log, "user unknown") and contains(log, "mail")),
        ("level:error", _leveled("ERROR")),
        ("level:warn,fatal", _leveled("WARN", "FATAL")),
        ("level>=warn", _from_level("WARN")),
        ("level>error", _from_level("FATAL")),
        ("level<=debug", lambda log: log.severity <= 8),
        (
            "NOT level:info,debug service:pay*",
            lambda log: log.level not in ("INFO", "DEBUG") and of_services("pay*")(log),
        ),
        (
            "(service:auth OR service:mail) -refused",
            lambda log: of_services("auth", "mail")(log) and not contains(log, "refused"),
        ),
        ("correlation:* level:fatal", lambda log: log.correlation_id is not None and log.level == "FATAL"),
        ("-correlation:* service:gateway", lambda log: log.correlation_id is None and log.service_name == "gateway"),
        ("correlation:exp-42", lambda log: log.correlation_id == "exp-42"),
        ("/took [0-9]{4} ms/ -level:info", lambda log: _matching("took [0-9]{4} ms")(log) and log.level != "INFO"),
        ("/CONNECTION REFUSED/i", lambda log: contains(log, "connection refused")),
        ("n>=2990", lambda log: any(n >= 2990 for n in numbers_at(log, "n"))),
        ("n<10 OR attempts:>2.5", lambda log: _below_ten(log) or any(n > 2.5 for n in numbers_at(log, "attempts"))),
        ("big>9223372036854775807", lambda log: any(n > 2**63 - 1 for n in numbers_at(log, "big"))),
        ("code<=200", lambda log: any(n <= 200 for n in numbers_at(log, "code"))),
        ("user:*", lambda log: "user" in log.metadata),
        ("none:*", lambda log: False),
        ("-user:* n:*", lambda log: "user" not in log.metadata and "n" in log.metadata),
        ('user:"Ada Lovelace" OR http.status:503', lambda log: _either(log)),
        (
            f"{RARE} OR level:trace a_b",
            lambda log: contains(log, RARE) or (log.level == "TRACE" and contains(log, "a_b")),
        ),
        ("service:shifted/* level>=error", lambda log: of_services("shifted/*")(log) and log.severity >= 17),
    )
)


def _below_ten(log: Expected) -> bool:
    return any(number < 10 for number in numbers_at(log, "n"))


def _either(log: Expected) -> bool:
    return field_equals(log, "user", "Ada Lovelace") or field_equals(log, "http.status", "503")


def _mixed_questions(logs: Sequence[Expected]) -> Iterator[Question]:
    middle = sorted(log.timestamp_us for log in logs)[len(logs) // 2]
    yield Question(
        {"service_name": "payments/*", "min_level": "WARN", "q": "REFUSED", "start_time": iso(middle)},
        lambda log: (
            of_services("payments/*")(log)
            and log.severity >= 13
            and contains(log, "refused")
            and log.timestamp_us >= middle
        ),
    )
    yield Question(
        {"query": "user:*", "metadata.ok": "true", "regex": "[0-9]$", "level": ["INFO", "DEBUG"]},
        lambda log: (
            "user" in log.metadata
            and log.metadata.get("ok") is True
            and log.message[-1:].isdecimal()
            and log.level in ("INFO", "DEBUG")
        ),
    )
    story = next(log.correlation_id for log in logs if log.correlation_id is not None)
    yield Question({"correlation_id": story}, of_story(story))
    yield Question(
        {"correlation_id": story, "level": "INFO"}, lambda log: log.correlation_id == story and log.level == "INFO"
    )


# --- times and predicates -----------------------------------------------------------------------------------------------


def micros(moment: datetime) -> int:
    """Microseconds since the Unix epoch."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def iso(us: int) -> str:
    """ISO 8601 in UTC with microseconds."""
    return (EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def fold(text: str) -> str:
    """Each character in its one-character lower case; ASCII letters are equal to ASCII letters only."""
    return text.lower() if text.isascii() else "".join(map(_fold_character, text))


def _fold_character(character: str) -> str:
    lower = character.lower()
    return character if len(lower) > 1 or (lower.isascii() and not character.isascii()) else lower


_folded = lru_cache(maxsize=1_000)(fold)


def contains(log: Expected, text: str) -> bool:
    """The message contains the text, letters in either case."""
    return _folded(text) in log.folded


def values_at(metadata: dict[str, Any], path: str) -> Iterator[Any]:
    """The values that a dotted name finds: objects for its first parts, then one key with the rest."""
    yield from (metadata[path],) if path in metadata else ()
    head, dot, rest = path.partition(".")
    if dot and isinstance(metadata.get(head), dict):
        yield from values_at(metadata[head], rest)


def field_equals(log: Expected, path: str, text: str) -> bool:
    """A metadata field equals the text: a string exactly, a number by value, a boolean by name."""
    return any(_equals(value, text) for value in values_at(log.metadata, path))


def numbers_at(log: Expected, path: str) -> list[Decimal]:
    """The metadata field's values that are JSON numbers."""
    return [
        Decimal(str(value))
        for value in values_at(log.metadata, path)
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def _equals(value: object, text: str) -> bool:
    match value:
        case str():
            return value == text
        case bool():
            return text == ("true" if value else "false")
        case int() | float():
            return bool(re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", text)) and Decimal(str(value)) == Decimal(text)
        case _:
            return False


def _plain_numbers(value: Any) -> Any:
    """Whole floats as integers: JSON does not tell them apart."""
    match value:
        case dict():
            return {key: _plain_numbers(item) for key, item in value.items()}
        case list():
            return [_plain_numbers(item) for item in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value
