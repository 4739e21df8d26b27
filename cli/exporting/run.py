"""One export: pages in, an output out, settled every few seconds. One task; a page is added before the next is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import httpx

from cli.exporting.lines import read_page
from cli.exporting.output import Format, Output, open_output
from cli.exporting.state import ExportState, forget, save
from cli.pages import walk
from runtime.clock import Clock
from store.segments.files import fsync_directory, unfinished_path

_SETTLED_EVERY_S: Final = 5.0


class Export:
    """Into a file that bears its name when it is whole, or into standard output."""

    def __init__(self, state: ExportState, path: Path | None) -> None:
        """state: what the file holds already. path: None: standard output. Raises OSError."""
        self.state = state
        self._path = path
        self._file = _open(path, state)
        self._output: Output = open_output(self._file, state.format, state.compression, written=state.bytes)

    @property
    def is_resumable(self) -> bool:
        """Whether another process can go on."""
        return self._path is not None and self.state.format is not Format.PARQUET

    async def run(
        self,
        client: httpx.AsyncClient,
        *,
        clock: Clock,
        give_up_after_s: float,
        on_wait: Callable[[str, float], None],
        on_page: Callable[[ExportState, int], None],
    ) -> None:
        """To the end of the walk. on_page: (state, bytes written, about). Raises Unreachable, Refused, OSError."""
        settled_s = clock.monotonic_s()
        state = self.state
        pages = walk(
            client,
            state.parameters,
            read=read_page,
            limit=None,
            cursor=state.cursor,
            clock=clock,
            give_up_after_s=give_up_after_s,
            on_wait=on_wait,
        )
        async for page in pages:
            self._output.add(page.logs)
            if page.logs:
                state.first = state.first or page.logs[0].timestamp
                state.reached = page.logs[-1].timestamp
                state.logs += len(page.logs)
            elif page.scanned_to:
                state.reached = page.scanned_to
            state.cursor = page.next_cursor
            on_page(state, self._output.written)
            if state.cursor is not None and clock.monotonic_s() - settled_s >= _SETTLED_EVERY_S:
                self.settle()
                settled_s = clock.monotonic_s()
        self._output.finish()
        state.bytes = self._output.written
        if self._path is not None:
            self._file.close()
            unfinished_path(self._path).rename(self._path)
            fsync_directory(self._path.parent)
            forget(self._path)

    def settle(self) -> None:
        """Keep what there is so far for going on later, where that is possible. Raises OSError."""
        if self._path is None or not self.is_resumable or self.state.cursor is None:
            return
        settled = self._output.settle()
        assert settled is not None, "text can be settled"
        before, self.state.bytes = self.state.bytes, settled
        try:
            save(self._path, self.state)
        except OSError:
            self.state.bytes = before  # nobody can go on from what is not written down
            raise

    def stop(self) -> bool:
        """After an error or interrupt: keep what is good for going on. Returns whether something is."""
        with suppress(OSError):  # the disk may be full: what was settled before is kept
            self.settle()
        self._output.abandon()
        is_kept = self.is_resumable and self.state.bytes > 0
        if self._path is not None:
            with suppress(OSError):
                self._file.close()
            if not is_kept:
                unfinished_path(self._path).unlink(missing_ok=True)
                forget(self._path)
        return is_kept


def _open(path: Path | None, state: ExportState) -> BinaryIO:
    if path is None:
        return sys.stdout.buffer
    unfinished = unfinished_path(path)
    if state.bytes == 0:
        forget(path)
        return unfinished.open("wb")
    file = unfinished.open("r+b")
    file.truncate(state.bytes)
    file.seek(0, os.SEEK_END)
    return file
