"""The keys of `logfeed up`: made at its first start, kept in its data directory, found there by the commands on this machine.

`keys/admin` reads and administers everything, `keys/ingest` writes everything; both files are their owner's alone (0600). A key
in a file is sent to loopback only: another machine's server gets the one that LOGFEED_API_KEY holds, or none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
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
_KEY_BYTES_MAX: Final = 1_000


class FirstKey(StrEnum):
    """Which of the two."""

    ADMIN = "admin"
    INGEST = "ingest"


_GRANTS: Final = {FirstKey.ADMIN: ("admin:*",), FirstKey.INGEST: ("write:*",)}


def key_file(data_dir: Path, key: FirstKey) -> Path:
    """Where a key is kept."""
    return data_dir / "keys" / key


async def make_first_keys(database: Database, data_dir: Path) -> dict[FirstKey, str]:
    """Both keys, made and kept, when the database never had a key; empty otherwise.

    Raises ConfigurationError when the files cannot be written: then no key was made. Raises DatabaseUnavailable.
    """
    from access.accounts import Accounts
    from access.keys import new_key

    accounts = Accounts(database)
    if await accounts.has_keys():
        return {}
    keys = {which: new_key() for which in FirstKey}
    # Files first: what a crash leaves in between opens nothing, and the next start makes others.
    try:
        key_file(data_dir, FirstKey.ADMIN).parent.mkdir(mode=0o700, exist_ok=True)
        for which, key in keys.items():
            file = key_file(data_dir, which)
            file.unlink(missing_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as output:
                output.write(key.text + "\n")
                output.flush()
                os.fsync(descriptor)
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: the first keys cannot be kept: {error.strerror}") from error
    named = ((f"{which} key of `logfeed up`", _GRANTS[which], key) for which, key in keys.items())
    is_made = await accounts.make_first_keys(named, created_by="logfeed up")
    return {which: key.text for which, key in keys.items()} if is_made else {}


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
