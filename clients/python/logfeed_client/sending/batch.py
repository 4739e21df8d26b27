"""A request's logs and the key they are sent under, which stay together whatever happens: pure."""

from __future__ import annotations

import gzip
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Compress = Callable[[bytes], bytes]
_ZSTD_LEVEL: Final = 3
_GZIP_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Logs that are sent together, the same ones under the same key each time: so each is stored once."""

    key: str
    """`Idempotency-Key`: a random one, or one made of the key of what was split."""
    body: bytes
    """NDJSON, each line with its end."""
    logs: int

    @classmethod
    def of(cls, lines: list[bytes]) -> Batch:
        """Lines with their ends, under a new key."""
        return cls(new_key(), b"".join(lines), len(lines))

    def halves(self) -> tuple[Batch, Batch] | None:
        """Two batches with the same logs in order; None of a single log. Always the same ones under the same keys, so that who
        splits again after a crash repeats, and does not send anew."""
        if self.logs < 2:
            return None
        lines = [line + b"\n" for line in self.body.split(b"\n")[:-1]]
        first, second = lines[: len(lines) // 2], lines[len(lines) // 2 :]
        return (
            Batch(f"{self.key}.0", b"".join(first), len(first)),
            Batch(f"{self.key}.1", b"".join(second), len(second)),
        )


def new_key() -> str:
    """32 hexadecimal digits."""
    return secrets.token_hex(16)


def compression() -> tuple[str, Compress]:
    """(Content-Encoding, how): zstd where the package zstandard is installed, else gzip. One thread at a time."""
    try:
        import zstandard
    except ImportError:
        return "gzip", lambda body: gzip.compress(body, _GZIP_LEVEL, mtime=0)
    return "zstd", zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress
