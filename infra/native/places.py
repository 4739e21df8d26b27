"""Where the native servers live, and as whom they run.

PostgreSQL refuses to run as root, so under root both servers run as an unprivileged account. That account must reach its
files, and root's home is closed to it: whatever lies behind a closed directory moves to /var/tmp/logfeed-UID, which is
created closed for writing to everybody else. Not root: everything runs as the caller, where the caller says.
"""

import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.native.errors import NodeError

_UNPRIVILEGED = ("postgres", "logfeed", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """The system account that a server runs as."""

    name: str
    uid: int
    gid: int

    @property
    def is_caller(self) -> bool:
        return self.uid == os.geteuid()

    def reaches(self, path: Path) -> bool:
        """Whether this account may pass through every existing directory on the way to `path`, itself included."""
        existing = (directory for directory in (path, *path.parents) if directory.exists())
        return all(self._enters(directory.stat()) for directory in existing)

    def _enters(self, status: os.stat_result) -> bool:
        if self.uid == 0:
            return True
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def server_account() -> Account:
    """The caller, or under root the first unprivileged account that exists; one is created where none does."""
    if os.geteuid() != 0:
        entry = pwd.getpwuid(os.geteuid())
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    for name in _UNPRIVILEGED:
        if found := _lookup(name):
            return found
    try:
        subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "logfeed"], check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise NodeError(
            f"no account to run as: PostgreSQL refuses root, and `useradd logfeed` failed: {error}"
        ) from error
    created = _lookup("logfeed")
    if created is None:
        raise NodeError("useradd reported success, but the account logfeed does not exist")
    return created


def cache_root(account: Account) -> Path:
    """The directory that installed servers are kept in: LOGFEED_CACHE, XDG_CACHE_HOME/logfeed, or the shared place."""
    wanted = os.environ.get("LOGFEED_CACHE")
    if not wanted:
        wanted = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "logfeed")
    path = Path(wanted).expanduser().absolute()
    return (path if account.reaches(path) else shared_place() / "cache") / "native"


def state_root(account: Account) -> Path:
    """The directory of `services start` when the user names none."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "logfeed"
    return (base if account.reaches(base.absolute()) else shared_place() / "state") / "native"


def reachable_home(directory: Path, account: Account) -> Path:
    """`directory`, or where `account` cannot reach it, a stand-in that always belongs to the same `directory`."""
    if account.reaches(directory):
        return directory
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return shared_place() / "nodes" / f"{directory.name}-{digest}"


def shared_place() -> Path:
    """/var/tmp/logfeed-UID, writable by the caller alone. `NodeError` when somebody else got there first."""
    place = Path(f"/var/tmp/logfeed-{os.geteuid()}")
    place.mkdir(mode=0o711, exist_ok=True)
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise NodeError(f"{place} is not a directory that only this user can write to; remove it and try again")
    return place


def open_to_all(directory: Path) -> None:
    """Creates `directory` with its parents so that other accounts may pass through what is created here."""
    for path in (*reversed(directory.parents), directory):
        if not path.exists():
            path.mkdir(exist_ok=True)
            path.chmod(0o711)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on the file `path`; a second process waits, and a dead one's lock is gone."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_tree(directory: Path) -> None:
    """Removes what earlier runs left; nothing there is fine."""
    shutil.rmtree(directory, ignore_errors=True)


def _lookup(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
