"""Real files, an agent over them that is killed at any step, and a server that remembers bodies by their keys."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from agent.roots import Root
from agent.shipping.batches import Collector
from agent.shipping.checkpoint import Checkpoint
from agent.shipping.files import FileSet
from agent.shipping.tailed import ShippedRoot
from agent.shipping.tailing import Tailer

SECOND_US = 1_000_000


class Host:
    """Files, an agent over them, and what the server has. Time passes when told."""

    files: FileSet
    checkpoint: Checkpoint

    def __init__(self, directory: Path, **options: Any) -> None:
        self.folder = directory / "logs"
        self.folder.mkdir()
        self._state = directory / "state"
        self._options = options
        self.now_us = 1_795_000_000 * SECOND_US
        self.bodies: dict[str, bytes] = {}
        self.is_away = False
        self._is_begun = False
        self.start()

    def start(self) -> None:
        """As after a kill: nothing but the checkpoint is there."""
        if self._is_begun:
            self.files.close()
            self.checkpoint.close()
        self._is_begun = True
        self.checkpoint = Checkpoint(self._state)
        self.state, body = self.checkpoint.load()
        shipped = ShippedRoot(Root("app", self.folder, "shop", ("**",)), **self._options)
        self.files = FileSet([shipped], self.state, files_max=100)
        tailer = Tailer(self.files, host="web-1", unfinished_line_s=30)
        self.collector = Collector(
            self.files, tailer, self.state, batch_bytes_max=256 * 1024, is_closed_segment=lambda _: False
        )
        if self.state.parts:
            self._send(self.state.parts[0].key, body)

    def look(self) -> None:
        """For new files."""
        self.files.scan(self.now_us, self.now_us / 1e6)

    def turn(self, *, killed: str = "") -> bool:
        """Send one batch; False when there was none. killed: before or after it is sent, or before it is written down."""
        self.now_us += SECOND_US // 4
        batch = self.collector.collect(self.now_us, self.now_us / 1e6)
        if batch is None:
            self.checkpoint.save(self.collector.snapshot())
            return False
        if killed != "before":
            self.checkpoint.save(batch.state)
            if killed != "unsent":
                self._send(batch.part.key, batch.body)
            if killed:
                self.start()
        else:
            self.start()
        return True

    def settle(self, seconds: float = 40) -> None:
        """Until nothing more comes, and every wait is over."""
        ends_us = self.now_us + int(seconds * SECOND_US)
        while self.now_us < ends_us:
            self.look()
            while self.turn():
                pass
            self.now_us += 3 * SECOND_US

    def _send(self, key: str, body: bytes) -> None:
        assert self.bodies.setdefault(key, body) == body, "a key stands for one body"

    def logs(self) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for body in self.bodies.values()
            for line in zstandard.ZstdDecompressor().decompress(body, max_output_size=1 << 26).splitlines()
        ]

    def messages(self) -> list[str]:
        return [log["message"] for log in self.logs()]

    def append(self, name: str, *lines: str, end: str = "\n") -> None:
        with (self.folder / name).open("a") as file:
            file.write("\n".join(lines) + end)
        os.utime(self.folder / name, ns=(self.now_us * 1_000, self.now_us * 1_000))

    def pack(self, name: str, packed: str, pack: Callable[[bytes], bytes] = gzip.compress) -> None:
        """As gzip does: the archive has the time of what it was made of."""
        path = self.folder / name
        (self.folder / packed).write_bytes(pack(path.read_bytes()))
        os.utime(self.folder / packed, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
        path.unlink()

    def has_each_once(self, expected: list[str]) -> None:
        counts = Counter(self.messages())
        assert {line: count for line, count in counts.items() if count > 1} == {}
        assert set(counts) == set(expected)


def numbered(begin: int, end: int) -> list[str]:
    return [f"line {number} of this file, with some more text" for number in range(begin, end)]
