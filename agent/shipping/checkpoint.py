"""What the agent remembers: how far each file was read, and the request that is on its way.

One file, written whole beside its place, synced, and renamed: it is one state or the next, never half of one. A line of JSON,
then the body of the request, if one is on its way. The places in the files are those after that request, so a state that names
one means: send this first, then read on. A state that cannot be read is refused, since whatever were made of it would
lose lines or send them twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Final

import msgspec

from agent.errors import StateError

VERSION: Final = 1
STATE_BYTES_MAX: Final = 64 * 1024 * 1024
_FILE: Final = "state"
_LOCK: Final = "lock"


class Place(msgspec.Struct):
    """How far one file was read. Offsets are of the text: of a compressed file, of what it holds."""

    root: str
    name: str
    device: int
    inode: int
    head_bytes: int = 0
    head: str = ""
    """Fingerprint of the first head_bytes of the text."""
    offset: int = 0
    tail: str = ""
    """Fingerprint of the KiB before offset."""
    is_skipping: bool = False
    """The offset lies within a line whose rest is left out."""
    packing: str | None = None
    is_done: bool = False
    """Nothing more is read of it."""
    is_cut: bool = False
    """A compressed file that had no end, or was damaged, when it was done: it may still be written."""
    last_us: int | None = None
    """The last time that a line said."""
    gone_us: int | None = None
    """When it was seen to have no name any more. It is remembered for a while, so that its archive is known."""


class Part(msgspec.Struct, frozen=True):
    """One request on its way: bytes of the body, and the key that makes it be stored once."""

    key: str
    size: int
    logs: int


class State(msgspec.Struct):
    """Everything remembered. agent_id: random, of this directory. batch: number of the last request that was made.
    looked_us: when roots were last looked at, microseconds since the Unix epoch."""

    agent_id: str
    batch: int = 0
    looked_us: dict[str, int] = {}
    places: list[Place] = []
    parts: list[Part] = []
    body_sha256: str = ""
    version: int = VERSION


def write_state(state: State, body: bytes) -> bytes:
    """The file's bytes. body: of all parts, one after the other."""
    state.body_sha256 = hashlib.sha256(body).hexdigest() if body else ""
    return msgspec.json.encode(state) + b"\n" + body


def read_state(raw: bytes) -> tuple[State, bytes]:
    """(state, body). Raises StateError."""
    head, _, body = raw.partition(b"\n")
    try:
        state = msgspec.json.decode(head, type=State)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise StateError(f"is no state of an agent: {error}") from error
    if state.version != VERSION:
        raise StateError(f"is of version {state.version}, this program reads {VERSION}")
    is_whole = sum(part.size for part in state.parts) == len(body) and all(part.size > 0 for part in state.parts)
    if not is_whole or state.body_sha256 != (hashlib.sha256(body).hexdigest() if body else ""):
        raise StateError("is damaged: its request is not the one that was written")
    if any(place.offset < 0 or not 0 <= place.head_bytes <= 4096 for place in state.places):
        raise StateError("is damaged: a place in a file is none")
    return state, body


class Checkpoint:
    """The file, in a directory that one process at a time has. Calls block; one thread at a time."""

    def __init__(self, directory: Path) -> None:
        """Raises StateError when the directory cannot be made, or another agent has it."""
        self._path = directory / _FILE
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(f"{directory}: another agent uses it; agent.state_dir names a place of its own") from error
        except OSError as error:
            raise StateError(f"{directory}: cannot be used: {error.strerror}; agent.state_dir names another") from error

    def load(self) -> tuple[State, bytes]:
        """(state, body of its request); a new one at the first start. Raises StateError."""
        try:
            if self._path.stat().st_size > STATE_BYTES_MAX:
                raise StateError(f"{self._path}: is too large for a state")
            return read_state(self._path.read_bytes())
        except FileNotFoundError:
            return State(agent_id=os.urandom(16).hex()), b""
        except OSError as error:
            raise StateError(f"{self._path}: cannot be read: {error.strerror}") from error
        except StateError as error:
            raise StateError(
                f"{self._path}: {error}; without it the agent begins anew, and sends lines again that the server has"
            ) from error

    def save(self, raw: bytes) -> None:
        """Put it in place, durably. Raises OSError: the old state is still there."""
        beside = self._path.with_suffix(".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(raw)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Let another agent have the directory."""
        os.close(self._lock)
