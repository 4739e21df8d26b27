"""Everything that is decided before the first line of any file is sent: format, times, what is left to do, what is refused.

Reads the head of each file, samples of large ones, and for `--time shift` the whole file once. Sends and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from cli.importing.records import read_records
from cli.importing.sources import Fingerprint, Kind, Source, SourceError, texts
from cli.importing.state import OPEN_END, Extent, ImportState, Options, StateError, load
from cli.importing.timeline import Found, Span, TimeMode, refuse_past_retention, warn_of_future
from formats.lines import Format, LineParser, detect
from schemas.errors import InvalidInput

_SPOTS: Final = 16
"""Places of a large file, besides its head, where `keep` looks at times."""
_DETECT_LINES_MAX: Final = 300
_SCAN_REPORT_LINES: Final = 20_000


class Choices(NamedTuple):
    """How the import was asked for, besides what its bodies depend on (Options)."""

    options: Options
    url: str
    restart: bool
    together: bool
    retention_days: int


class Job(NamedTuple):
    """One file, ready to be sent. state_path: None for standard input. notes: what the user should know first."""

    source: Source
    state: ImportState
    state_path: Path | None
    notes: list[str]


Scanning = Callable[[Source, int], None]
"""Called now and then while a file is scanned: (source, bytes on disk read)."""


def prepare(
    sources: Sequence[tuple[Source, Path | None]], choices: Choices, *, now_us: int, salt: str, scanning: Scanning
) -> list[Job]:
    """The jobs in order. salt: random text for imports that must be new to the server (--restart, standard input).

    Raises SourceError, StateError, InvalidInput or PastRetention: then nothing of any file was sent.
    """
    jobs: list[Job] = []
    spans: dict[int, Span] = {}
    for source, state_path in sources:
        lines = texts(source.samples(_SPOTS))
        state = _earlier_state(source, state_path, choices)
        if state is not None:
            state.grow(source.size if source.kind is Kind.FILE else 0, now_us)
            jobs.append(Job(source, state, state_path, []))
            continue
        state = _new_state(source, lines, choices, now_us=now_us, salt=salt)
        job = Job(source, state, state_path, [])
        _require_service(job, lines)
        if choices.options.time is not TimeMode.NOW and (span := _span(job, lines, scanning)) is not None:
            spans[len(jobs)] = span
        jobs.append(job)
    if choices.options.time is TimeMode.SHIFT:
        _set_shifts(jobs, spans, together=choices.together)
    for index, span in spans.items():
        _judge_times(jobs[index], span, retention_days=choices.retention_days)
    return jobs


def parser_of(state: ImportState, now_us: int) -> LineParser:
    """The parser of a file's lines as of a run's moment."""
    return LineParser(
        Format(state.format),
        pattern=state.pattern,
        zone=ZoneInfo(state.options.zone),
        now_us=now_us,
        correlation_pattern=state.options.correlation_pattern,
    )


def _earlier_state(source: Source, state_path: Path | None, choices: Choices) -> ImportState | None:
    """The state to go on from. Raises StateError when there is one that does not fit."""
    state = load(state_path) if state_path is not None and not choices.restart else None
    if state is None:
        return None
    anew = "--restart imports the file anew, --state FILE keeps another state"
    for name in Options.__struct_fields__:
        before, asked = getattr(state.options, name), getattr(choices.options, name)
        if before != asked:
            raise StateError(
                f"{source.name}: was begun with {name} {before!r}, now it is {asked!r}."
                f" Repeat the same command to go on; {anew}."
            )
    if state.url != choices.url:
        raise StateError(f"{state_path}: belongs to an import to {state.url}, not {choices.url}; {anew}.")
    seen = source.fingerprint(state.fingerprint.head_bytes)
    is_shorter = source.kind is Kind.FILE and source.size < state.extents[-1].end
    is_other_archive = source.kind is not Kind.FILE and source.size != state.fingerprint.size
    if seen.sha256 != state.fingerprint.sha256 or is_shorter or is_other_archive:
        raise StateError(
            f"{source.name}: is no longer the file whose import was begun ({state_path});"
            " a file may only have grown at its end. --restart imports it anew."
        )
    return state


def _new_state(
    source: Source, lines: Sequence[tuple[int, str]], choices: Choices, *, now_us: int, salt: str
) -> ImportState:
    options = choices.options
    head = [text for number, text in lines if number][:_DETECT_LINES_MAX]
    format, pattern = detect(Format(options.format), head, zone=ZoneInfo(options.zone), now_us=now_us)
    return ImportState(
        file=source.name,
        url=choices.url,
        fingerprint=source.fingerprint() if source.resumable else Fingerprint("", 0, 0),
        options=options,
        format=format,
        pattern=pattern,
        salt=salt if choices.restart or not source.resumable else "",
        extents=[Extent(source.size if source.kind is Kind.FILE else OPEN_END, now_us)],
    )


def _require_service(job: Job, lines: Sequence[tuple[int, str]]) -> None:
    if job.state.options.service is not None:
        return
    parser = parser_of(job.state, job.state.extents[0].now_us)
    for number, text in lines:
        if parser.parse(text).service_name is None:
            where = f"line {number} names" if number else "some of its lines name"
            raise InvalidInput(f"{job.source.name}: {where} no service; say which with --service NAME")


def _span(job: Job, lines: Sequence[tuple[int, str]], scanning: Scanning) -> Span | None:
    """Of all lines for shift, of the sampled ones for keep."""
    if job.state.options.time is TimeMode.SHIFT:
        if not job.source.resumable:
            raise InvalidInput("--time shift must know the newest line first: it takes files, not standard input")
        return _scan(job, scanning)
    parser = parser_of(job.state, job.state.extents[0].now_us)
    span: Span | None = None
    for number, text in lines:
        time_us = parser.time_of(text)
        if time_us is not None:
            found = Found(number, time_us)
            span = span.widen(found) if span else Span(found, found)
    if span is None and lines:
        job.notes.append(f"{job.source.name}: no time found in its lines; they get the time of the import")
    return span


def _scan(job: Job, scanning: Scanning) -> Span:
    extent, span = job.state.extents[0], None
    parser = parser_of(job.state, extent.now_us)
    reader = job.source.open()
    try:
        for record in read_records(reader, start=0, end=extent.end, lines_before=0, continues=None):
            time_us = parser.time_of(record.text)
            if time_us is not None:
                found = Found(record.line, time_us)
                span = span.widen(found) if span else Span(found, found)
            if record.line % _SCAN_REPORT_LINES == 0:
                scanning(job.source, reader.disk_position())
    finally:
        reader.close()
    if span is None:
        raise SourceError(f"{job.source.name}: no line with a time found, so there is nothing to shift; use --time now")
    return span


def _set_shifts(jobs: Sequence[Job], spans: dict[int, Span], *, together: bool) -> None:
    newest_of_all = max((span.newest.time_us for span in spans.values()), default=0)
    for index, span in spans.items():
        state = jobs[index].state
        state.shift_us = state.extents[0].now_us - (newest_of_all if together else span.newest.time_us)


def _judge_times(job: Job, span: Span, *, retention_days: int) -> None:
    times = job.state.times(job.state.extents[0].now_us)
    refuse_past_retention(job.source.name, span.oldest, times, retention_days=retention_days)
    if (warning := warn_of_future(job.source.name, span.newest, times)) is not None:
        job.notes.append(warning)
