"""Reading one file on: the next whole logs of it, encoded. Blocks; one thread.

What was read is believed only when the file is still the same one afterwards: a truncation between two calls would
otherwise give bytes of another file for those of this one.
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import structlog

from agent.errors import ReadFailed
from agent.metrics import BYTES
from agent.reading.blocks import open_stream
from agent.shipping.encoding import LogEncoder, SentLog, write_logs
from agent.shipping.files import FileSet, is_same, remember
from agent.shipping.identity import TAIL_BYTES, fingerprint
from agent.shipping.joining import PIECE_BYTES_MIN, JoinRules, Split, split
from agent.shipping.tailed import Tailed
from formats.lines import BEGINS, LineParser, detect

log = structlog.get_logger(__name__)

_SAMPLE_LINES: Final = 50
"""First lines that say what a file's lines are."""
_PARSER_US: Final = 60 * 1_000_000
"""How long a parser's idea of now is good for, of lines without a year."""
_QUIET_S: Final = 2.0
"""For so long nobody has written to a file without a name: nobody will."""


class Taken(NamedTuple):
    """text: NDJSON, a line for each of the logs. source_bytes: of the file. has_more: there may be more at once."""

    text: bytes
    logs: int
    source_bytes: int
    has_more: bool


class Tailer:
    """Reads the files of a set."""

    def __init__(self, files: FileSet, *, host: str, unfinished_line_s: float) -> None:
        """host: goes into the metadata of each log. unfinished_line_s: see AgentSettings."""
        self._files, self._host = files, host
        self._unfinished_line_s = unfinished_line_s
        self._encoders: dict[tuple[str, str], LogEncoder] = {}

    def take(self, tailed: Tailed, *, bytes_max: int, logs_max: int, now_us: int, now_s: float) -> Taken:
        """The next logs of a file, at most so many, out of about so many bytes; none where there are none. The file's place is
        behind them."""
        try:
            if tailed.place.packing is None:
                return self._take_plain(tailed, bytes_max, logs_max, now_us, now_s)
            return self._take_packed(tailed, bytes_max, logs_max, now_us)
        except (OSError, ReadFailed) as error:
            reason = str(error) if isinstance(error, ReadFailed) else error.strerror
            log.warning("a file cannot be read on", root=tailed.place.root, file=tailed.place.name, reason=reason)
            tailed.is_broken = tailed.place.packing is not None
            self._files.done(tailed, now_us)
            return Taken(b"", 0, 0, False)

    def _take_plain(self, tailed: Tailed, bytes_max: int, logs_max: int, now_us: int, now_s: float) -> Taken:
        place = tailed.place
        size = os.fstat(tailed.descriptor).st_size
        if size != tailed.size:
            tailed.size, tailed.grown_s = size, now_s
        if size == place.offset:
            self._at_end(tailed, now_us, now_s)
            return Taken(b"", 0, 0, False)
        if size < place.offset:
            self._files.truncated(tailed)
            return Taken(b"", 0, 0, True)
        quiet_s = now_s - tailed.grown_s
        is_over = tailed.is_gone and quiet_s > _QUIET_S
        piece_bytes = bytes_max
        while True:
            piece = os.pread(tailed.descriptor, piece_bytes, place.offset)
            if place.offset == 0 and piece.startswith(BOM_UTF8):
                remember(tailed, piece, len(BOM_UTF8))
                continue
            reaches_end = place.offset + len(piece) >= size
            found = split(
                piece,
                self._rules(tailed, piece, now_us),
                is_skipping=place.is_skipping,
                is_final=reaches_end and (is_over or quiet_s > tailed.shipped.join_timeout_s),
                takes_unfinished=reaches_end
                and not tailed.shipped.is_ready
                and (is_over or quiet_s > self._unfinished_line_s),
                logs_max=logs_max,
            )
            if found.taken or len(piece) < piece_bytes or piece_bytes >= PIECE_BYTES_MIN:
                break
            piece_bytes = PIECE_BYTES_MIN
        if not is_same(tailed, os.fstat(tailed.descriptor).st_size):
            self._files.truncated(tailed)
            return Taken(b"", 0, 0, True)
        text = self._encoded(tailed, found, now_us)
        remember(tailed, piece, found.taken)
        place.is_skipping = found.is_skipping
        BYTES.inc(found.taken)
        return Taken(text, len(found.texts), found.taken, found.taken > 0 and place.offset < size)

    def _at_end(self, tailed: Tailed, now_us: int, now_s: float) -> None:
        if tailed.is_gone and now_s - tailed.grown_s > _QUIET_S:
            self._files.done(tailed, now_us)
        elif tailed.size and not tailed.is_gone:
            if not is_same(tailed, tailed.size):
                self._files.truncated(tailed)
                return
            self._files.sleep(tailed, now_s)

    def _take_packed(self, tailed: Tailed, bytes_max: int, logs_max: int, now_us: int) -> Taken:
        place = tailed.place
        if tailed.stream is None:
            self._open_stream(tailed)
        assert tailed.stream is not None
        wanted = bytes_max
        while True:
            while len(tailed.carry) < wanted and not tailed.is_at_end:
                try:
                    more = tailed.stream.read(wanted - len(tailed.carry))
                except ReadFailed as error:  # the whole lines before it are sent
                    log.warning("an archive cannot be read on", root=place.root, file=place.name, reason=str(error))
                    more, tailed.is_broken = b"", True
                tailed.is_at_end = not more
                tailed.carry += more
            if place.offset == 0 and tailed.carry.startswith(BOM_UTF8):
                tailed.tail_data, tailed.carry = BOM_UTF8, tailed.carry[len(BOM_UTF8) :]
                place.offset = len(BOM_UTF8)
            found = split(
                tailed.carry,
                self._rules(tailed, tailed.carry, now_us),
                is_skipping=place.is_skipping,
                is_final=tailed.is_at_end,
                takes_unfinished=tailed.is_at_end and not tailed.is_broken,
                logs_max=logs_max,
            )
            if found.taken or tailed.is_at_end or wanted >= PIECE_BYTES_MIN:
                break
            wanted = PIECE_BYTES_MIN
        text = self._encoded(tailed, found, now_us)
        tailed.tail_data = ((tailed.tail_data or b"") + tailed.carry[: found.taken])[-TAIL_BYTES:]
        tailed.carry = tailed.carry[found.taken :]
        place.offset += found.taken
        place.tail, place.is_skipping = fingerprint(tailed.tail_data), found.is_skipping
        BYTES.inc(found.taken)
        if tailed.is_at_end and (not tailed.carry or (tailed.is_broken and not found.taken)):
            self._files.done(tailed, now_us)
        return Taken(text, len(found.texts), found.taken, not place.is_done)

    def _open_stream(self, tailed: Tailed) -> None:
        """Go to the place; where what lies before it is not what was read, this is another file, and is read from its
        beginning."""
        place = tailed.place
        stream = open_stream(tailed.descriptor, place.packing)
        passed, tail = 0, b""
        while passed < place.offset and (piece := stream.read(min(64 * 1024, place.offset - passed))):
            passed += len(piece)
            tail = (tail + piece)[-TAIL_BYTES:]
        if passed < place.offset or (place.tail and fingerprint(tail) != place.tail):
            log.warning("no archive of the file that it seemed to be: read from its beginning", file=place.name)
            stream = open_stream(tailed.descriptor, place.packing)
            place.offset, place.tail, place.is_skipping, tail = 0, "", False, b""
        tailed.stream, tailed.tail_data, tailed.carry, tailed.is_at_end = stream, tail, b"", False

    def _rules(self, tailed: Tailed, piece: bytes, now_us: int) -> JoinRules:
        shipped = tailed.shipped
        if shipped.is_ready:
            return shipped.rules
        parser = self._parser(tailed, piece, now_us)
        return JoinRules(parser.continues, BEGINS) if shipped.joins_automatically else shipped.rules

    def _parser(self, tailed: Tailed, piece: bytes, now_us: int) -> LineParser:
        if tailed.parser is not None and tailed.lines_seen >= _SAMPLE_LINES:
            if abs(now_us - tailed.parsed_from_us) < _PARSER_US:
                return tailed.parser
            tailed.parser.at(now_us)
            tailed.parsed_from_us = now_us
            return tailed.parser
        zone = ZoneInfo(tailed.shipped.zone)
        lines = [
            line.decode("utf-8", "replace") for line in piece[: 256 * 1024].split(b"\n", _SAMPLE_LINES)[:_SAMPLE_LINES]
        ]
        lines = [line for line in lines if line.strip()]
        kind, pattern = detect(tailed.shipped.format, lines, zone=zone, now_us=now_us)
        tailed.parser = LineParser(kind, pattern=pattern, zone=zone, now_us=now_us, correlation_pattern=None)
        tailed.parsed_from_us, tailed.lines_seen = now_us, max(tailed.lines_seen, len(lines))
        return tailed.parser

    def _encoded(self, tailed: Tailed, found: Split, now_us: int) -> bytes:
        if tailed.shipped.is_ready:
            return "".join(f"{text}\n" for text, _ in found.texts).encode()
        place = tailed.place
        assert tailed.parser is not None
        parse, log_of = tailed.parser.parse, self._encoder(tailed).log
        logs: list[SentLog] = []
        last_us = place.last_us
        for number, (text, is_cut) in enumerate(found.texts):
            entry = parse(text)
            if entry.time_us is not None:
                last_us = entry.time_us
            # A line without a time has that of the line before it, else the moment, in the order of the lines.
            time_us = now_us + number if last_us is None else last_us
            logs.append(log_of(entry, time_us, text=text, is_cut=is_cut))
        place.last_us = last_us
        return write_logs(logs)

    def _encoder(self, tailed: Tailed) -> LogEncoder:
        place, shipped = tailed.place, tailed.shipped
        if (found := self._encoders.get((place.root, place.name))) is None:
            if len(self._encoders) > 2_000:
                self._encoders.clear()
            name = f"{place.root}/{place.name}"
            metadata = {"host": self._host, "file": name, **shipped.metadata}
            found = self._encoders[place.root, place.name] = LogEncoder(service=shipped.root.service, metadata=metadata)
        return found
