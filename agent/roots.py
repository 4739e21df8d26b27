"""Which files there are: those under the roots of the settings that fit their patterns, and nothing else.

A name is resolved one folder at a time, each opened from the one before it and never through a symbolic link, so that nobody
who swaps a name for a link in between leads out. A link is followed by reading it: its target is resolved in the same way and
must lie under the same root, and fit the root's patterns too. Devices, pipes and sockets are no files. What is refused looks
like what is not there: `NoSuchFile`, whatever the reason.

Every call may block for as long as the file system does. Any thread.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.errors import NoSuchFile
from agent.globs import compile_globs

NAME_CHARS_MAX: Final = 4_096
DEPTH_MAX: Final = 32
"""Folders below a root."""
_LINKS_MAX: Final = 8
_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""O_NONBLOCK: a pipe that took the file's place must not hold us; it changes nothing for regular files."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file as a listing saw it. name: below its root. modified_ns: since the Unix epoch."""

    name: str
    device: int
    inode: int
    bytes: int
    modified_ns: int
    is_link: bool = False


@dataclass(frozen=True, slots=True)
class Unlisted:
    """What a listing could not look at, in words. below: the folder with all in it, as names of files begin, "" for the root;
    None when it is one name alone, which no file here can have."""

    text: str
    below: str | None = None


@dataclass(frozen=True, slots=True)
class Root:
    """A folder whose files may be read, as logs of one service."""

    name: str
    path: Path
    service: str
    include: Sequence[str] = ("**",)
    exclude: Sequence[str] = ()
    _included: object = field(init=False, repr=False, compare=False)
    _excluded: object = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_included", compile_globs(self.include).fullmatch)
        object.__setattr__(self, "_excluded", compile_globs(self.exclude).fullmatch)

    def has(self, name: str) -> bool:
        """Whether the patterns permit the name, which is relative to the root."""
        return bool(self._included(name)) and not self._excluded(name)  # type: ignore[operator]  # of compiled patterns

    def open(self, name: str) -> int:
        """A descriptor of the regular file; the caller closes it. Raises NoSuchFile."""
        parts = name.split("/")
        if len(name) > NAME_CHARS_MAX or "\0" in name or {"", ".", ".."} & set(parts) or not self.has(name):
            raise NoSuchFile
        try:
            return self._resolve(parts)
        except (OSError, ValueError) as error:  # ValueError: no name of this file system
            raise NoSuchFile from error

    def look(self, name: str) -> Found:
        """What `open` would open. Raises NoSuchFile."""
        descriptor = self.open(name)
        try:
            return _found(name, os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def why_not(self, name: str) -> str | None:
        """Why a file that was listed cannot be opened, for its owner; None when it can, or is gone meanwhile."""
        try:
            os.close(self.open(name))
        except NoSuchFile as error:
            reason = error.__cause__
            if isinstance(reason, OSError) and reason.errno in (errno.EACCES, errno.EPERM):
                return f"{os.strerror(reason.errno)}: this account may not read it"
        return None

    def walk(self, *, entries_max: int) -> Iterator[Found | Unlisted]:
        """The files, in order of their names, one folder after the other.

        entries_max: names that are looked at, of any kind.
        """
        try:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            yield Unlisted(f"{self.name}: {os.strerror(error.errno or 0)}", "")
            return
        left = [entries_max]
        try:
            yield from self._walk(folder, "", DEPTH_MAX, left)
        finally:
            os.close(folder)

    def _walk(self, folder: int, below: str, depth: int, left: list[int]) -> Iterator[Found | Unlisted]:
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            yield Unlisted(f"{self.name}/{_shown(below)}: {os.strerror(error.errno or 0)}", below)
            return
        for entry in names:
            if left[0] <= 0:
                if left[0] == 0:
                    yield Unlisted(f"{self.name}: more names than are looked at; narrow the root's path", "")
                left[0] = -1
                return
            left[0] -= 1
            name = below + entry
            try:
                yield from self._entry(folder, entry, name, depth, left)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # gone, or swapped, meanwhile
                    yield Unlisted(f"{self.name}/{_shown(name)}: {os.strerror(error.errno or 0)}", name)

    def _entry(self, folder: int, entry: str, name: str, depth: int, left: list[int]) -> Iterator[Found | Unlisted]:
        info = os.stat(entry, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            if depth:
                inner = os.open(entry, _OPEN_FOLDER, dir_fd=folder)
                try:
                    yield from self._walk(inner, f"{name}/", depth - 1, left)
                finally:
                    os.close(inner)
        elif not self.has(name):
            return
        elif _shown(name) != name:
            yield Unlisted(f"{self.name}/{_shown(name)}: its name is no UTF-8")
        elif stat.S_ISREG(info.st_mode):
            yield _found(name, info)
        elif stat.S_ISLNK(info.st_mode):
            try:
                target = self.look(name)
            except NoSuchFile:  # it leads nowhere, out, or to a folder
                return
            yield Found(name, target.device, target.inode, target.bytes, target.modified_ns, is_link=True)

    def _resolve(self, parts: list[str]) -> int:
        folders = [os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        names: list[str] = []
        """Of the folders below the root that are open."""
        pending, links = deque(parts), 0
        try:
            while pending:
                part = pending.popleft()
                if part in ("", "."):
                    continue
                if part == "..":  # of a link's target
                    if not names:
                        raise NoSuchFile
                    os.close(folders.pop())
                    names.pop()
                    continue
                info = os.stat(part, dir_fd=folders[-1], follow_symlinks=False)
                if stat.S_ISLNK(info.st_mode):
                    links += 1
                    target = os.readlink(part, dir_fd=folders[-1])
                    if links > _LINKS_MAX or len(target) > NAME_CHARS_MAX:
                        raise NoSuchFile
                    if target.startswith("/"):
                        target = self._below(target)
                        while names:
                            os.close(folders.pop())
                            names.pop()
                    pending.extendleft(reversed(target.split("/")))
                elif pending:
                    if len(names) > DEPTH_MAX:
                        raise NoSuchFile
                    folders.append(os.open(part, _OPEN_FOLDER, dir_fd=folders[-1]))
                    names.append(part)
                else:
                    return self._open_file(folders[-1], part, "/".join((*names, part)))
            raise NoSuchFile
        finally:
            for folder in folders:
                os.close(folder)

    def _open_file(self, folder: int, part: str, name: str) -> int:
        if not self.has(name) or not stat.S_ISREG(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
            raise NoSuchFile
        descriptor = os.open(part, _OPEN_FILE, dir_fd=folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NoSuchFile
        return descriptor

    def _below(self, target: str) -> str:
        """An absolute target, relative to this root. Raises NoSuchFile when it lies elsewhere."""
        for base in {str(self.path.absolute()), os.path.realpath(self.path)}:
            prefix = base.rstrip("/") + "/"
            if target.startswith(prefix):
                return target.removeprefix(prefix)
        raise NoSuchFile


def _found(name: str, info: os.stat_result) -> Found:
    return Found(name, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)


def _shown(name: str) -> str:
    """With U+FFFD for bytes that are no UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
