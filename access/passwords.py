"""Passwords by argon2id (RFC 9106, its second recommended option: 64 MiB, 3 passes, 4 lanes).

Hashing takes about 0.2 s of a core and 64 MiB, so it runs in threads of a pool of its own, few at once, and who would have to
wait behind too many is refused. A user who does not exist costs as much as one with a wrong password.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from access.errors import AccountError, TooManyLogins

PASSWORD_CHARS_MIN: Final = 10
PASSWORD_BYTES_MAX: Final = 1_024
_WAITING_MAX: Final = 32
P = ParamSpec("P")
T = TypeVar("T")

_hasher: Final = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4, hash_len=32, salt_len=16)
_NOBODY: Final = "$argon2id$v=19$m=65536,t=3,p=4$bG9nZmVlZC1ub2JvZHktMA$3n0rmRkZk2mSNCZrJ5n7m0Qe8ZwN0WwR1k7cGm4v9dI"
"""Of no password."""


def check_password(password: str) -> None:
    """Raises AccountError when it may not be one: only its length is judged (NIST SP 800-63B)."""
    if len(password) < PASSWORD_CHARS_MIN or len(password.encode("utf-8", "surrogatepass")) > PASSWORD_BYTES_MAX:
        raise AccountError(
            f"expected a password of {PASSWORD_CHARS_MIN} characters or more and at most {PASSWORD_BYTES_MAX} bytes,"
            f" got {len(password)} characters"
        )


def hash_password(password: str) -> str:
    """What is stored of a password. Takes about 0.2 s of a core."""
    return _hasher.hash(password)


def is_password(stored: str | None, password: str) -> bool:
    """Whether it is the one that was stored; None: nobody's, which takes as long. Takes about 0.2 s of a core."""
    try:
        _hasher.verify(_NOBODY if stored is None else stored, password)
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False
    return stored is not None


class PasswordChecks:
    """Checks and hashes beside the event loop, few at once."""

    def __init__(self, *, at_once: int) -> None:
        """at_once: threads, each with 64 MiB while it checks."""
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="password")
        self._waiting = 0

    async def check(self, stored: str | None, password: str) -> bool:
        """See `is_password`. Raises TooManyLogins when too many wait."""
        return await self._beside(is_password, stored, password)

    async def hash(self, password: str) -> str:
        """See `hash_password`. Raises AccountError when it may not be one, TooManyLogins when too many wait."""
        check_password(password)
        return await self._beside(hash_password, password)

    def close(self) -> None:
        """End the threads; checks under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _beside(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._waiting >= _WAITING_MAX:
            raise TooManyLogins("too many people are logging in at this moment: try again shortly", retry_after_s=2)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, partial(work, *args, **kwargs))
        finally:
            self._waiting -= 1
