"""What the user sees while an import runs: a bar on a terminal, nothing but warnings elsewhere. All on standard error."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from cli.terminal import harmless


class Screen:
    """Bar and messages. Use as a context manager."""

    def __init__(self, *, quiet: bool, console: Console | None = None) -> None:
        """quiet: no bar and no notes, only warnings. console: standard error when left out."""
        self._console = console or Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TextColumn("{task.fields[lines]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def bar(self, what: str, *, total: int | None, done: int) -> Bar:
        """A bar over bytes; total None: unknown."""
        task = self._progress.add_task(harmless(what), total=total, completed=done, lines="")
        return Bar(self._progress, task)

    def note(self, text: str) -> None:
        """Something worth knowing; not in quiet."""
        if not self._quiet:
            self._console.print(Text(harmless(text)), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Something to act on; always."""
        self._console.print(Text(harmless(text, keep_newlines=True), style="yellow"), soft_wrap=True)


class Bar:
    """One bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        """See Screen.bar."""
        self._progress, self._task = progress, task

    def show(self, *, done: int, lines: str = "") -> None:
        """done: bytes so far. lines: text beside the bar."""
        self._progress.update(self._task, completed=done, lines=lines)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.remove_task(self._task)
