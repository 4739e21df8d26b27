"""`logfeed keys`: API keys for producers and programs. Speaks to the database directly."""

from __future__ import annotations

import asyncio
import getpass
import json
import math
import re
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from cli.database import ConfigOption, opened_database, read_settings
from cli.permissions import (
    AdminOption,
    AlertOption,
    ExportOption,
    HostOption,
    ReadOption,
    TailOption,
    WriteOption,
    grants_of,
)
from cli.rates import burst_seconds, bytes_rate, logs_rate, rate_text
from cli.terminal import harmless
from cli.usage import Command, group
from schemas.errors import InvalidInput

if TYPE_CHECKING:
    from access.accounts import Accounts, KeyInfo
    from access.principal import RateLimits

app = group(help="API keys: create, list, revoke. Changes act everywhere within two seconds.")

_Answer = TypeVar("_Answer")
_LIFETIME: Final = re.compile(r"(\d{1,5})([hdwy])")
_HOURS: Final = {"h": 1, "d": 24, "w": 7 * 24, "y": 365 * 24}


def with_accounts(config: Path | None, action: Callable[[Accounts], Awaitable[_Answer]]) -> _Answer:
    """Do something to the accounts of the database that the settings name. Raises what it raises."""
    from access.accounts import Accounts

    settings = read_settings(config, "accounts")

    async def run() -> _Answer:
        async with opened_database(settings, "accounts") as database:
            return await action(Accounts(database))

    return asyncio.run(run())


@app.command(cls=Command)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who has it, for people: shop-production.")],
    write: WriteOption = None,
    read: ReadOption = None,
    tail: TailOption = None,
    export: ExportOption = None,
    alert: AlertOption = None,
    admin: AdminOption = None,
    host: HostOption = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="Good for so long: 12h, 90d, 8w, 1y.")
    ] = None,
    networks: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="NETWORK", help="Only from this network, 10.0.0.0/8; repeatable."),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option("--rate", metavar="LOGS/s", help="Logs that each ingest process takes of it: 5000/s, none."),
    ] = None,
    rate_bytes: Annotated[
        str | None, typer.Option("--rate-bytes", metavar="BYTES/s", help="Bytes, decompressed: 5MB/s, none.")
    ] = None,
    burst: Annotated[
        str | None, typer.Option("--burst", metavar="TIME", help="So much of both at once after a pause: 10s; else 1s.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False,
    config: ConfigOption = None,
) -> None:
    """Make a key and print it, once: only its hash is kept.

    SERVICE is a name, a prefix with * behind it, or * for all; quote the star. A key that may write exactly one service
    need not name it in its logs. Without a rate ingest.key_rate holds.

    [bold]Examples[/bold]
      logfeed keys create shop --write shop --rate 5000/s --rate-bytes 5MB/s
      logfeed keys create payments-team --read 'pay/*' --tail 'pay/*' --expires 90d
      logfeed keys create agents --write '*' --from 10.0.0.0/8
      logfeed keys create web-1 --write nginx --host web-1
    """
    grants = grants_of(write=write, read=read, tail=tail, export=export, alert=alert, admin=admin, host=host)
    expires_at = None if expires is None else datetime.now(UTC) + lifetime(expires)
    rates = _rates(rate, rate_bytes, burst)
    created_by = f"{getpass.getuser()}@{socket.gethostname()}"
    key = with_accounts(
        config,
        lambda accounts: accounts.create_key(
            name, grants, created_by=created_by, expires_at=expires_at, networks=networks or (), rates=rates
        ),
    )
    print(json.dumps({"prefix": key.prefix, "key": key.text}) if as_json else key.text)


@app.command("list", cls=Command)
def list_keys(
    everything: Annotated[bool, typer.Option("--all", help="Revoked and expired ones too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False,
    config: ConfigOption = None,
) -> None:
    """Newest first: prefix, state, name, what each may, when it was used last. Exit code 1 when there is none."""
    now = datetime.now(UTC)
    found = with_accounts(config, lambda accounts: accounts.keys())
    shown = [key for key in found if everything or key.state(now) == "good"]
    for key in shown:
        print(json.dumps(_as_json(key, now)) if as_json else _line(key, now))
    if not shown:
        raise typer.Exit(1)


@app.command(cls=Command)
def revoke(
    prefixes: Annotated[list[str], typer.Argument(metavar="PREFIX…", help="As `list` shows them.")],
    config: ConfigOption = None,
) -> None:
    """Revoke keys for good. No process lets one in from two seconds later on (while it reaches the database)."""

    async def each(accounts: Accounts) -> None:
        for prefix in prefixes:
            await accounts.revoke_key(prefix)
            print(f"{prefix} revoked")

    with_accounts(config, each)


def lifetime(text: str) -> timedelta:
    """Raises InvalidInput."""
    match = _LIFETIME.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise InvalidInput(f"--expires: expected a number with h, d, w or y behind it, such as 90d, got {text[:60]!r}")
    return timedelta(hours=int(match[1]) * _HOURS[match[2]])


def _rates(rate: str | None, rate_bytes: str | None, burst: str | None) -> RateLimits:
    """Raises InvalidInput."""
    from access.principal import RateLimits

    if burst is not None and rate is None and rate_bytes is None:
        raise InvalidInput("--burst: goes with --rate or --rate-bytes")
    return RateLimits(
        None if rate is None else logs_rate(rate),
        None if rate_bytes is None else bytes_rate(rate_bytes),
        1.0 if burst is None else burst_seconds(burst),
    )


def _rates_text(key: KeyInfo) -> str:
    found = []
    if key.logs_per_s is not None:
        found.append(rate_text(key.logs_per_s, is_bytes=False))
    if key.bytes_per_s is not None:
        found.append(rate_text(key.bytes_per_s, is_bytes=True))
    return f"  rate {', '.join(found)}, burst {key.burst_s:g}s" if found else ""


def _finite(rate: float | None) -> float | str | None:
    """JSON has no infinity."""
    return "none" if rate is not None and math.isinf(rate) else rate


def _line(key: KeyInfo, now: datetime) -> str:
    until = "" if key.expires_at is None else f"  until {key.expires_at:%Y-%m-%d %H:%M}"
    places = "" if not key.networks else f"  from {', '.join(key.networks)}"
    state = f"{key.state(now):8}"
    used = "  never used" if key.last_used_at is None else f"  used {key.last_used_at.astimezone(UTC):%Y-%m-%d %H:%M}"
    return harmless(f"{key.prefix}  {state} {key.name}  {' '.join(key.grants)}{places}{used}{_rates_text(key)}{until}")


def _as_json(key: KeyInfo, now: datetime) -> dict[str, Any]:
    def text(time: datetime | None) -> str | None:
        return None if time is None else time.astimezone(UTC).isoformat()

    return {
        "prefix": key.prefix,
        "name": key.name,
        "state": key.state(now),
        "grants": key.grants,
        "networks": key.networks,
        "created_at": text(key.created_at),
        "created_by": key.created_by,
        "expires_at": text(key.expires_at),
        "revoked_at": text(key.revoked_at),
        "last_used_at": text(key.last_used_at),
        "logs_per_s": _finite(key.logs_per_s),
        "bytes_per_s": _finite(key.bytes_per_s),
        "burst_s": key.burst_s,
    }
