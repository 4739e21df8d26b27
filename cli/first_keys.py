"""The keys of `logfeed up`, and its first user: made at its first start, kept in its data directory.

`keys/admin` reads and administers everything, `keys/ingest` writes everything: the commands on this machine find them there.
`keys/admin-password` is what the user `admin` logs in to the page with. All files are their owner's alone (0600). A key in a
file is sent to loopback only: another machine's server gets the one that LOGFEED_API_KEY holds, or none.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from db.database import Database

KEY_VARIABLE: Final = "LOGFEED_API_KEY"
KEY_HELP: Final = "API key; else the one that LOGFEED_API_KEY holds, else that of `logfeed up` on this machine."

DATA_VARIABLE: Final = "LOGFEED_DATA_DIR"
DATA_DEFAULT: Final = "logfeed-data"
USER: Final = "admin"
_KEY_BYTES_MAX: Final = 1_000
_PASSWORD_BYTES: Final = 18


class FirstKey(StrEnum):
    """Which of the two."""

    ADMIN = "admin"
    INGEST = "ingest"


_GRANTS: Final = {FirstKey.ADMIN: ("admin:*",), FirstKey.INGEST: ("write:*",)}


@dataclass(frozen=True, slots=True)
class FirstAccess:
    """What was made now, as text that is shown once."""

    keys: Mapping[FirstKey, str] = field(default_factory=dict)
    """Both or none."""
    password: str | None = None
    """Of the user `admin`; None: no such user was made."""


def key_file(data_dir: Path, key: FirstKey) -> Path:
    """Where a key is kept."""
    return data_dir / "keys" / key


def password_file(data_dir: Path) -> Path:
    """Where the first password of the user `admin` is kept; one that was changed is not."""
    return data_dir / "keys" / f"{USER}-password"


async def make_first_access(database: Database, data_dir: Path) -> FirstAccess:
    """Both keys and the user, made and kept, when the database never had a key; nothing otherwise. A user of that name who is
    there already stays as they are.

    Raises ConfigurationError when the files cannot be written: then nothing was made. Raises DatabaseUnavailable.
    """
    from access.accounts import Accounts
    from access.keys import new_key
    from access.passwords import hash_password

    accounts = Accounts(database)
    if await accounts.has_keys():
        return FirstAccess()
    keys = {which: new_key() for which in FirstKey}
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    texts = {key_file(data_dir, which): key.text for which, key in keys.items()} | {password_file(data_dir): password}
    # Files first: what a crash leaves in between opens nothing, and the next start makes others.
    try:
        password_file(data_dir).parent.mkdir(mode=0o700, exist_ok=True)
        for file, text in texts.items():
            _keep(file, text)
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: the first keys cannot be kept: {error.strerror}") from error
    named = ((f"{which} key of `logfeed up`", _GRANTS[which], key) for which, key in keys.items())
    user = USER, _GRANTS[FirstKey.ADMIN], await asyncio.to_thread(hash_password, password)
    made = await accounts.make_first(named, user, created_by="logfeed up")
    if not made.user:
        password_file(data_dir).unlink(missing_ok=True)
    return FirstAccess(
        {which: key.text for which, key in keys.items()} if made.keys else {}, password if made.user else None
    )


def _keep(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as output:
        output.write(text + "\n")
        output.flush()
        os.fsync(descriptor)


def api_key_for(url: str, which: FirstKey, environment: Mapping[str, str] | None = None) -> str | None:
    """The key that a command on this machine sends to a server; None when it has none."""
    variables = os.environ if environment is None else environment
    if given := variables.get(KEY_VARIABLE, "").strip():
        return given
    if urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"):
        return None
    try:
        with key_file(Path(variables.get(DATA_VARIABLE) or DATA_DEFAULT), which).open(encoding="ascii") as file:
            return file.read(_KEY_BYTES_MAX).strip() or None
    except (OSError, UnicodeDecodeError):
        return None
