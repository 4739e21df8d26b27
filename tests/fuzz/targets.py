"""Everything that reads what strangers write, as functions of bytes: each may refuse by its documented errors, and by no
other.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import msgspec
from logfeed_client import LogfeedError as ClientError
from logfeed_client.headers import incoming, outgoing
from logfeed_client.querying import results
from logfeed_client.querying.events import EventReader, frame_of
from logfeed_client.sending.answers import Taken, judge
from logfeed_client.sending.batch import Batch
from logfeed_client.sending.spool import parse_name, whole_lines
from pydantic import ValidationError
from starlette.requests import HTTPConnection

from access.accounts import check_networks
from access.authenticator import _token as _credential
from access.errors import AccountError, Unauthenticated
from access.grants import check_grants
from access.keys import key_prefix, key_sha256
from access.tokens import read_access_token
from agent.errors import QuestionInvalid, StateError
from agent.heartbeat import read_answer as read_heartbeat_answer
from agent.questions import parse_file, parse_list
from agent.shipping.checkpoint import read_state
from agent.shipping.encoding import LogEncoder, write_logs
from agent.shipping.joining import JoinRules, split
from agent.shipping.sending import read_answer as read_batch_answer
from agent.syslog.framing import Frame, Framer
from agent.syslog.parse import encode as encode_syslog
from agent.syslog.parse import parse as parse_syslog
from alerts.errors import RuleInvalid
from alerts.matching import parse_matcher
from alerts.service import read_document
from broker.port import Delivered
from broker.topic_names import service_of
from cli.canary.probe import Shown, recognised
from cli.exporting.lines import read_page
from cli.http_client import Problem, Unreachable, check_url
from cli.importing.records import read_records
from cli.log_view import LineView
from cli.settings import Settings
from cli.status import _read as read_status
from cli.status import screen
from cli.terminal import harmless, harmless_json
from connections.figures import figures_of
from connections.lines import Place, read_lines
from connections.metrics import BUILT_IN, Finder, Side
from formats.lines import Format, LineParser, compile_correlation, detect
from formats.times import TimeReader
from ingest.body import read_body
from ingest.errors import BodyTooLarge, InvalidFields, ItemError, MalformedBody, UnsupportedBody
from ingest.filters.config import build_chain, parse_chain
from ingest.idempotency import keyed
from ingest.parse import Malformed, Window, decode_batch, decode_one, may_hold_nul, to_log
from ingest.quick import PlainLog, opened, plain_lines, plain_of, read_plain, read_plain_one
from ingest.receive import Received
from ingest.records import Records as Pushed
from ingest.timestamps import parse_timestamp, show
from ingest.wire.elastic.answers import EVERYTHING, Outcome, members_of, outcome_of, worded
from ingest.wire.elastic.bulk import read_bulk
from ingest.wire.loki.labels import InvalidLabels, parse_labels
from ingest.wire.loki.read import read_json as read_loki_json
from ingest.wire.loki.read import read_protobuf as read_loki_protobuf
from ingest.wire.otlp.json_body import read_json
from ingest.wire.otlp.protobuf import read_protobuf
from ingest.wire.otlp.records import Made
from patterns.masks import Masker
from query import params
from query.accounts.parameters import grants_of, parse_keys, parse_users
from query.cursor import CursorSeal
from query.errors import CursorError
from query.hosts.addresses import read_address
from query.hosts.agents import problem_detail
from query.hosts.records import AnswerFaulty, Form, Records, read_files
from query.loki import logql, pipeline, shapes
from query.loki.parameters import time_us
from query.loki.syntax import LogQLError, LogQuery, MetricQuery
from query.tail.token import TailSeal
from query.topics.place import parse_place, place_text
from runtime.addresses import network_of
from runtime.origins import Origins, origin_of
from runtime.patience import retry_after_s
from runtime.settings import load
from runtime.traceparent import traceparent_of
from schemas.accounts import NewKey, NewPassword, NewUser, UserChange
from schemas.errors import ConfigurationError, InvalidInput
from schemas.export_lines import csv_records, ndjson
from schemas.frames import (
    FRAME_DECODED_BYTES_MAX,
    FrameError,
    UnknownRecordVersion,
    decode_headers,
    decode_line,
    decompress,
    encode_lines,
    metadata_of,
)
from schemas.levels import band
from schemas.record import Log, is_service_name
from schemas.scope import ServiceScope
from search.language import QueryError, parse
from search.match import compile_match
from search.params import ParameterError
from search.regex import RegexError, parse_pattern
from writer.decode import decode_frame

NOW_MS: Final = 1_795_000_000_000
NOW_US: Final = NOW_MS * 1000
CORPUS: Final = Path(__file__).parent / "corpus"
_SECRET: Final = b"s" * 32
_BODY_BYTES_MAX: Final = 1024 * 1024
_WINDOW: Final = Window.at(NOW_MS, 30)


@dataclass(frozen=True)
class Target:
    """One reader. refuses: what it may raise."""

    run: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...] = ()
    grows: float = 40.0
    """Bytes that it may hold at once for each byte it was given, beside a fixed share."""
    is_from_strangers: bool = True
    """What only the operator writes may take its time."""
    most_bytes: int = 40 * 1024 * 1024
    """The fixed share: of a decompressor's window, and of what is loaded at a first use."""


def text_of(raw: bytes) -> str:
    """Any text, lone surrogates included: JSON brings them."""
    return raw.decode("utf-8", "surrogatepass") if _is_text(raw) else raw.decode("latin-1")


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _by_text(run: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda raw: run(text_of(raw))


# Sending


def _batch(raw: bytes) -> None:
    for item in decode_batch(raw, logs_max=1_000):
        assert isinstance(to_log(item, 1, _WINDOW, may_hold_nul=may_hold_nul(raw)), (Log, ItemError))


def _one(raw: bytes) -> None:
    assert isinstance(to_log(decode_one(raw), 1, _WINDOW, may_hold_nul=may_hold_nul(raw)), (Log, ItemError))


def _quick(raw: bytes) -> None:
    for logs in (read_plain(raw, logs_max=1_000), read_plain_one(raw)):
        if logs is not None:
            plain_lines(logs, range(len(logs)), _WINDOW)


def _elastic_bulk(raw: bytes) -> None:
    """Read both ways to the same lines, and answered item by item."""
    bulk = read_bulk(raw, index=None, default_service="d", logs_max=1_000)
    received = Received()
    plain = plain_of(bulk.items)
    lines = None if plain is None else plain_lines(plain, range(len(plain)), _WINDOW)
    for number, item in enumerate(bulk.items):
        log = to_log(opened(item), number, _WINDOW, may_hold_nul=True)
        if isinstance(log, Log):
            received.kept.append(log)
        else:
            received.rejected.append((number, log))
    if lines is not None:
        assert encode_lines(lines) == encode_lines(received.kept)
    outcome = Outcome.unpack(outcome_of(received, bulk).pack())
    items = json.loads(worded(outcome, bulk))["items"]
    assert [found["status"] for item in items for found in item.values()].count(201) == len(received.kept)
    assert len(items) == len(bulk.items)


def _filter_path(text: str) -> None:
    assert members_of(text) <= EVERYTHING


def _body(raw: bytes) -> None:
    """The first byte says how it is packed, the second in what pieces it comes."""
    encodings = ("gzip", "zstd", "identity", "", "deflate", "snappy", "x-snappy-framed")
    encoding = encodings[raw[0] % len(encodings)] if raw else ""
    size = 1 + (raw[1] if len(raw) > 1 else 0)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(2, len(raw), size):
            yield raw[start : start + size]

    async def read() -> None:
        body = await read_body(
            pieces(),
            content_encoding=encoding,
            content_length=None,
            bytes_max=_BODY_BYTES_MAX,
            deadline_s=600,
            grow=lambda _: None,
        )
        assert len(body) <= _BODY_BYTES_MAX

    asyncio.run(read())


def _both_ways(logs: Sequence[PlainLog | Malformed]) -> None:
    """What goes through as it is, is what a closer look makes of it."""
    found = [to_log(opened(log), number, _WINDOW, may_hold_nul=True) for number, log in enumerate(logs)]
    assert all(isinstance(log, (Log, ItemError)) for log in found)
    plain = plain_of(logs)
    lines = None if plain is None else plain_lines(plain, range(len(plain)), _WINDOW)
    if lines is not None:
        assert [metadata_of(line) for line in lines] == [log.metadata for log in found if isinstance(log, Log)]
        assert [line.message for line in lines] == [log.message for log in found if isinstance(log, Log)]


def _otlp(read: Callable[..., Made], raw: bytes) -> None:
    made = read(raw, default_service="unknown_service", logs_max=1_000)
    _both_ways(made.logs)


def _key(text: str) -> None:
    keyed(subject="ann", key=text, route="/api/v1/logs", body=b"")


def _timestamp(text: str) -> None:
    show(parse_timestamp(text))


# Asking


def _query(text: str) -> None:
    predicate = parse(text)
    compile_match(predicate)(Log(1, NOW_US, 9, "shop", text, None, {"a": text}))


def _regex(text: str) -> None:
    parse_pattern(text)


def _question(text: str) -> None:
    """As a query string."""
    items = httpx.QueryParams(text.encode("utf-8", "replace").decode()).multi_items()
    for read in (
        lambda: params.parse_find(items, now_us=NOW_US),
        lambda: params.parse_context(items),
        lambda: params.parse_correlation(items),
        lambda: params.parse_ledger(items, now_us=NOW_US, minutes_max=60),
        lambda: params.parse_none(items),
        lambda: parse_keys(items),
        lambda: parse_users(items),
        lambda: params.parse_log_id(text),
        lambda: params.parse_correlation_id(text),
    ):
        try:
            read()
        except InvalidInput:
            continue


def _account(raw: bytes) -> None:
    """A key or user to be made or changed, as JSON."""
    try:
        content = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    for model in (NewKey, NewUser, UserChange, NewPassword):
        try:
            wanted = model.model_validate(content)
        except ValidationError:
            continue
        if isinstance(wanted, (NewKey, NewUser)):
            grants_of(wanted.permissions)


def _cursor(text: str) -> None:
    CursorSeal(_SECRET).open(text, subject="ann", question="q")


def _tail_token(text: str) -> None:
    TailSeal(_SECRET).open(text, subject="ann", question="q")


def _alert_rule(raw: bytes) -> None:
    read_document(_data(raw)).as_json()


def _topic_place(text: str) -> None:
    place = parse_place(text)
    assert parse_place(place_text(place)) == place


# Credentials


def _token(text: str) -> None:
    assert read_access_token(text, _SECRET, now_s=NOW_MS // 1000) is None, "nobody without the secret makes one"


def _api_key(text: str) -> None:
    prefix = key_prefix(text)
    assert prefix is None or len(prefix) == 12
    assert len(key_sha256(text)) == 32


def _head(raw: bytes) -> None:
    """Header fields, one a line."""
    fields = [line.partition(b":") for line in raw.split(b"\n")]
    headers = [(name.lower(), value.strip()) for name, _, value in fields]
    connection = HTTPConnection({"type": "http", "scheme": "http", "path": "/", "headers": headers})
    Origins(["https://logs.example"]).admit(connection)
    _credential(connection)


def _grants(text: str) -> None:
    check_grants(text.split("\n"))


def _networks(text: str) -> None:
    network_of(text)
    check_networks(text.split("\n"))


# Between the services


def _frame(raw: bytes) -> None:
    """Headers and value of a record, parted by empty lines."""
    head, _, value = raw.partition(b"\n\n")
    headers = [(text_of(name), each) for name, _, each in (line.partition(b"=") for line in head.split(b"\n"))]
    decode_frame(Delivered(partition=0, offset=0, append_ms=NOW_MS, headers=headers, value=value))
    decode_headers(headers)


# Files


def _filters(raw: bytes) -> None:
    build_chain(parse_chain(_data(raw)))


def _data(raw: bytes) -> object:
    """What a settings file or the environment may hold."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return text_of(raw)


def _settings(raw: bytes) -> None:
    load(Settings, file=None, environment={"LOGFEED_INGEST__FILTERS": text_of(raw), "LOGFEED_HTTP__PORT": text_of(raw)})


def _import(raw: bytes) -> None:
    """A whole file, read as each kind of lines."""
    for kind in Format:
        lines = [text_of(line) for line in raw.split(b"\n") if line.strip()][:50]
        found, pattern = detect(kind, lines, zone=UTC, now_us=NOW_US)
        parser = LineParser(found, pattern=pattern, zone=UTC, now_us=NOW_US, correlation_pattern=None)
        records = read_records(io.BytesIO(raw), start=0, end=len(raw), lines_before=0, continues=parser.continues)
        end = 0
        for record in records:
            assert record.start == end, "no byte is left out"
            end = record.end
            parser.parse(record.text)
        assert end == len(raw)


def _loki(read: Callable[..., Pushed]) -> Callable[[bytes], None]:
    def run(raw: bytes) -> None:
        records = read(raw, default_service="unknown_service", logs_max=1_000)
        _both_ways(records.logs)

    return run


def _logql(text: str) -> None:
    query = logql.parse(text)
    if isinstance(query, MetricQuery):
        query = query.logs
    if isinstance(query, LogQuery):
        compiled = pipeline.plan(query, ("shop", "pay/api"))
        log = Log(1, 1, 9, "shop", 'level=warn {"a": 1}', "c", {"pod": "p", "http": {"status": 500}})
        compile_match(compiled.predicate)(log)
        compiled.labelled(log)


def _log_line(text: str) -> None:
    """As `json` and `logfmt` read lines."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        return
    for stage in ("json", "logfmt"):
        found = pipeline.plan(logql.parse_logs("{} | " + stage)).labelled(Log(1, 1, 9, "s", text, None, {}))
        assert found is not None
        assert len(found.parsed) <= pipeline.PARSED_MAX + 1
        shapes.logs_answer([found], is_categorized=False, warnings=[])


def _times(text: str) -> None:
    """The spelling that needs no pattern to have matched before."""
    found = TimeReader(zone=UTC, now_us=NOW_US).iso(text)
    assert found is None or isinstance(found, int)


def _answers(raw: bytes) -> None:
    """What a server, or something else at its address, answers to our commands."""
    response = httpx.Response(500, content=raw)
    assert "\x1b" not in harmless(Problem.read(response).text)
    retry_after_s(text_of(raw), NOW_US)
    try:
        page = read_page(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return
    csv_records(page.logs)
    ndjson(page.logs)


def _terminal(text: str) -> None:
    view = LineView(colour=False, utc=True)
    line = view.line(
        {"message": text, "service_name": text, "level": text, "timestamp": text, "metadata": {text: text}}
    )
    for shown in (harmless(text), harmless_json(json.dumps(text, ensure_ascii=False)), line):
        assert not any(ord(character) < 0x20 and character not in "\t\n" for character in shown)
        assert not any(0x7F <= ord(character) < 0xA0 or 0x202A <= ord(character) < 0x202F for character in shown)


def _status(raw: bytes) -> None:
    shown = screen(read_status(raw), datetime(2026, 1, 1, tzinfo=UTC))
    assert not any(ord(character) < 0x20 and character != "\n" for character in shown)


def _canary_log(raw: bytes) -> None:
    number, sent_us, as_sent = recognised(msgspec.json.decode(raw, type=Shown), "r")
    assert number >= 0
    assert sent_us >= 0
    assert not (as_sent and number == 0)


def _host_answer(raw: bytes) -> None:
    """What an agent answers: the first byte says as which form, the second in what pieces it comes."""
    form = (Form.NDJSON, Form.TEXT)[raw[0] % 2] if raw else Form.TEXT
    size = 1 + (raw[1] if len(raw) > 1 else 0)
    assert "\x1b" not in problem_detail(raw[2:])
    try:
        allowed = ServiceScope(names=frozenset({"shop"}))
        assert all(file.service_name == "shop" for file in read_files(raw[2:], allowed).files)
    except AnswerFaulty:
        pass
    records, found = Records(form), b""
    for start in range(2, len(raw), size):
        found += records.feed(raw[start : start + size])
    assert not found or found.endswith(b"\n")
    assert form is Form.TEXT or found.count(b"\n") == records.lines
    if records.end is not None:
        assert records.end.written(form).endswith(b"\n")


def _host_address(text: str) -> None:
    address = read_address(text, [ipaddress.ip_network("10.0.0.0/8")])
    assert read_address(address, [ipaddress.ip_network("10.0.0.0/8")]) == address


def _traceparent(text: str) -> None:
    assert traceparent_of(text).isascii()


def _connection_text(data: bytes) -> None:
    """Read and measured."""
    lines = list(read_lines(io.BytesIO(data).readline, Place()))
    logs = ((line.time_us or 0, line.number, line.level, line.message) for line in lines)
    figures = figures_of(logs, Finder(BUILT_IN, Side.CLIENT), Masker())
    assert figures.lines == len(lines)
    assert [line.end for line in lines] == sorted(line.end for line in lines)
    assert all(line.message.strip() and line.end <= len(data) for line in lines)
    said = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").split("\n")
    assert bool(lines) == any(line.strip() for line in said)


# The agent


def _syslog(raw: bytes) -> None:
    """A connection's bytes in pieces of the size that the first byte says, then each message read."""
    framer, size = Framer(4_096), 1 + (raw[0] if raw else 0)
    frames = [frame for start in range(0, len(raw), size) for frame in framer.feed(raw[start : start + size])]
    times = TimeReader(zone=UTC, now_us=NOW_US)
    for frame in (*frames, *framer.end(), Frame(raw, False)):
        assert len(frame.raw) <= 4_096 or frame.raw is raw
        message = parse_syslog(frame.raw, times)
        line = encode_syslog(message, service=None, now_us=NOW_US, peer="peer", agent="host", is_cut=frame.is_cut)
        assert line.count(b"\n") == 1
        assert is_service_name(json.loads(line)["service_name"])


def _joined_lines(raw: bytes) -> None:
    """As a file that is over: every byte is taken, in either way of joining, and each log can be sent."""
    encoder = LogEncoder(service="shop", metadata={"host": "h"})
    for kind in (Format.JSON, Format.PLAIN):
        parser = LineParser(kind, pattern=None, zone=UTC, now_us=NOW_US, correlation_pattern=None)
        place, is_skipping = 0, False
        while place < len(raw):
            found = split(
                raw[place:], JoinRules(parser.continues), is_skipping=is_skipping, is_final=True, takes_unfinished=True
            )
            assert found.taken
            logs = [encoder.log(parser.parse(text), NOW_US, text=text, is_cut=is_cut) for text, is_cut in found.texts]
            lines = write_logs(logs).splitlines()
            assert len(lines) == len(logs)
            assert all(isinstance(json.loads(line)["message"], str) for line in lines)
            place, is_skipping = place + found.taken, found.is_skipping
        assert place == len(raw)


def _agent_answers(raw: bytes) -> None:
    """What a server, or something else at its address, answers to an agent."""
    for status in (200, 201, 403, 413, 422, 503):
        read_batch_answer(status, raw, logs=10, pause_s=None)
        pause_s, _ = read_heartbeat_answer(status, raw)
        assert 1 <= pause_s <= 300


def _agent_question(text: str) -> None:
    """As a query string."""
    items = httpx.QueryParams(text.encode("utf-8", "replace").decode()).multi_items()
    for read in (parse_list, lambda items: parse_file(items, read_s_max=60, follow_s_max=60)):
        try:
            read(items)
        except QuestionInvalid:
            continue


# The Python client


def _client_answers(raw: bytes) -> None:
    """What a server, or something else at its address, answers to the Python client: a status, and the body behind a line
    end."""
    head, _, body = raw.partition(b"\n")
    status = int(head) if head.isdigit() and len(head) == 3 else 200
    found = judge(status, {"Retry-After": text_of(head)}, body, logs=1, now_s=NOW_MS / 1000)
    assert not isinstance(found, Taken) or status in (200, 201, 422)
    for build in (results.page_of, results.one_of, results.context_of, results.histogram_of):
        with contextlib.suppress(ClientError):
            results.read(body, build)


def _client_events(raw: bytes) -> None:
    """Whole, and cut into two: the same events."""
    reader = EventReader()
    whole = EventReader().feed(raw)
    assert whole == [*reader.feed(raw[: len(raw) // 2]), *reader.feed(raw[len(raw) // 2 :])]
    for event in whole:
        with contextlib.suppress(ClientError):
            frame_of(event)


def _client_headers(text: str) -> None:
    """Headers a line each, as a middleware reads them; what goes on is harmless."""
    headers = {name.lower(): value for name, _, value in (line.partition(":") for line in text.split("\n"))}
    found = incoming(headers.get)
    for value in outgoing(found.correlation_id, flags=found.flags, state=found.state).values():
        assert value.isascii()
        assert value.isprintable()


def _client_segment(raw: bytes) -> None:
    """A spooled file after a crash: its name, then its content."""
    name, _, content = raw.partition(b"\n")
    parse_name(text_of(name))
    body = whole_lines(content)
    halves = Batch("k", body, body.count(b"\n")).halves()
    assert halves is None or halves[0].body + halves[1].body == body


TARGETS: Final[dict[str, Target]] = {
    "syslog": Target(_syslog),
    "joined_lines": Target(_joined_lines),
    "agent_state": Target(read_state, (StateError,)),
    "agent_answers": Target(_agent_answers),
    "agent_question": Target(_by_text(_agent_question)),
    "client_answers": Target(_client_answers),
    "client_events": Target(_client_events),
    "client_headers": Target(_by_text(_client_headers)),
    "client_segment": Target(_client_segment),
    "connection_text": Target(_connection_text),
    "otlp_protobuf": Target(lambda raw: _otlp(read_protobuf, raw), (MalformedBody, BodyTooLarge)),
    "otlp_json": Target(lambda raw: _otlp(read_json, raw), (MalformedBody, BodyTooLarge)),
    "batch": Target(_batch, (InvalidFields, MalformedBody, BodyTooLarge)),
    "one_log": Target(_one, (InvalidFields, MalformedBody)),
    "quick": Target(_quick),
    "elastic_bulk": Target(_elastic_bulk, (MalformedBody, BodyTooLarge)),
    "filter_path": Target(_by_text(_filter_path)),
    "body": Target(_body, (BodyTooLarge, MalformedBody, UnsupportedBody)),
    "loki_json": Target(_loki(read_loki_json), (MalformedBody, BodyTooLarge)),
    "loki_protobuf": Target(_loki(read_loki_protobuf), (MalformedBody, BodyTooLarge)),
    "loki_labels": Target(_by_text(parse_labels), (InvalidLabels,)),
    "logql": Target(_by_text(_logql), (LogQLError,)),
    "log_line": Target(_by_text(_log_line)),
    "loki_time": Target(_by_text(lambda text: time_us(text, "start")), (ParameterError,)),
    "idempotency_key": Target(_by_text(_key), (InvalidFields,)),
    "timestamp": Target(_by_text(_timestamp), (ValueError,)),
    "level": Target(_by_text(band), (ValueError,)),
    "query": Target(_by_text(_query), (QueryError,)),
    "regex": Target(_by_text(_regex), (RegexError,)),
    "question": Target(_by_text(_question)),
    "account": Target(_account, (ParameterError,)),
    "cursor": Target(_by_text(_cursor), (CursorError,)),
    "tail_token": Target(_by_text(_tail_token), (CursorError,)),
    "alert_rule": Target(_alert_rule, (RuleInvalid,)),
    "matcher": Target(_by_text(parse_matcher), (ValueError,)),
    "topic_place": Target(_by_text(_topic_place), (ParameterError,)),
    "topic_name": Target(_by_text(service_of)),
    "token": Target(_by_text(_token)),
    "api_key": Target(_by_text(_api_key)),
    "head": Target(_head, (Unauthenticated,)),
    "origin": Target(_by_text(origin_of), (ValueError,)),
    "grants": Target(_by_text(_grants), (AccountError,)),
    "networks": Target(_by_text(_networks), (AccountError,)),
    "frame": Target(_frame, (FrameError, UnknownRecordVersion)),
    "frame_value": Target(decompress, (FrameError,), most_bytes=FRAME_DECODED_BYTES_MAX + 8 * 1024 * 1024),
    "frame_line": Target(decode_line, (msgspec.MsgspecError, UnicodeDecodeError)),
    "filters": Target(_filters, (ConfigurationError,)),
    "settings": Target(
        _by_text(lambda text: _settings(text.encode("utf-8", "replace"))),
        (ConfigurationError,),
        is_from_strangers=False,
    ),
    "import": Target(_import),
    "times": Target(_by_text(_times)),
    "correlation_pattern": Target(_by_text(compile_correlation), (InvalidInput,)),
    "url": Target(_by_text(check_url), (InvalidInput,)),
    "answers": Target(_answers),
    "host_answer": Target(_host_answer, (AnswerFaulty,)),
    "host_address": Target(_by_text(_host_address), (ParameterError,)),
    "traceparent": Target(_by_text(_traceparent)),
    "terminal": Target(_by_text(_terminal)),
    "status": Target(_status, (Unreachable,)),
    "canary_log": Target(_canary_log, (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)),
}
