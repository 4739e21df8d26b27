"""What the user sees while an export runs: logs, bytes and the time reached, on a terminal; all on standard error."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from cli.terminal import harmless
from search.params import ParameterError, parse_time

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Screen:
    """Bar and messages. Use as a context manager."""

    def __init__(
        self,
        what: str,
        *,
        quiet: bool,
        start: str | None,
        end: str | None,
        now_us: int,
        console: Console | None = None,
    ) -> None:
        """what: name of the output. start, end: of the range as asked for; without a start the bar begins at the first log.
        console: standard error when left out.
        """
        self._console = console or Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._start_us = _time_us(start, now_us)
        self._end_us = _time_us(end, now_us) or now_us
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[done]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._progress.add_task(harmless(what), total=None, done="")

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, *, logs: int, bytes: int, first: str | None, reached: str | None) -> None:
        """first, reached: timestamps as pages have them."""
        start_us, reached_us = self._start_us or _time_us(first, 0), _time_us(reached, 0)
        done = f"{logs:,} logs, {size_text(bytes)}" + (f", at {harmless(reached[:19])}" if reached else "")
        if start_us is not None and reached_us is not None and start_us < self._end_us:
            share = (reached_us - start_us) / (self._end_us - start_us)
            self._progress.update(self._task, total=1.0, completed=min(max(share, 0.0), 1.0), done=done)
        else:
            self._progress.update(self._task, done=done)

    def note(self, text: str) -> None:
        """Something worth knowing; not in quiet."""
        if not self._quiet:
            self._console.print(Text(harmless(text)), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Something to act on; always."""
        self._console.print(Text(harmless(text, keep_newlines=True), style="yellow"), soft_wrap=True)


def size_text(size: float) -> str:
    """Bytes for people."""
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _time_us(text: str | None, now_us: int) -> int | None:
    """None for what is none: the server says what is wrong with it."""
    if text is None:
        return None
    try:
        return parse_time(text, now_us, parameter="time")
    except ParameterError:
        return None
