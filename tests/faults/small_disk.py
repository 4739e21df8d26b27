"""A small disk of its own, which a test fills or freezes: a file with ext4 on a loop device.

Full: whoever writes gets ENOSPC. Frozen: whoever writes sleeps in the kernel (state D), and no signal reaches it before it is
thawed. Both need root and leave to mount; `SmallDisk.mounted` says why there is none elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BALLAST_PIECE = b"\0" * (1 << 20)


class NoDisk(Exception):
    """None can be made on this machine; the text says why."""


class SmallDisk:
    """A mounted file system."""

    def __init__(self, path: Path) -> None:
        """path: where it is mounted."""
        self.path = path
        self._is_frozen = False

    @classmethod
    @contextmanager
    def mounted(cls, size_mib: int) -> Iterator[SmallDisk]:
        """One that is unmounted at the end; whoever has files on it has ended by then. Raises NoDisk."""
        if os.geteuid() != 0:
            raise NoDisk("only root may mount a disk")
        directory = Path(tempfile.mkdtemp(prefix="logfeed-disk-"))
        directory.chmod(0o711)  # the servers run as another account and must pass through
        path, image = directory / "disk", directory / "image"
        path.mkdir()
        try:
            with image.open("wb") as file:
                file.truncate(size_mib << 20)
            _run("mkfs.ext4", "-q", "-m", "0", str(image))
            _run("mount", "-o", "loop", str(image), str(path))
            disk = cls(path)
            try:
                yield disk
            finally:
                disk.thaw()
                _run("umount", str(path))
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def fill(self) -> None:
        """Leave no room."""
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while file.write(_BALLAST_PIECE) == len(_BALLAST_PIECE):
                pass
        assert shutil.disk_usage(self.path).free < 1 << 20

    def make_room(self) -> None:
        """What `fill` took."""
        self._ballast.unlink()

    def freeze(self) -> None:
        """Whoever writes sleeps until it is thawed."""
        _run("fsfreeze", "--freeze", str(self.path))
        self._is_frozen = True

    def thaw(self) -> None:
        """As if nothing had been."""
        if self._is_frozen:
            _run("fsfreeze", "--unfreeze", str(self.path))
            self._is_frozen = False

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"


def _run(program: str, *arguments: str) -> None:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise NoDisk(f"{program} is not on this machine") from None
    if done.returncode:
        raise NoDisk(f"{program} {' '.join(arguments)}: {done.stderr.strip()}")
