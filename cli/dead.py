"""`logfeed dead`: look at lines that could not be stored, store them after all, or drop them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli.database import opened_database, read_settings
from cli.terminal import harmless
from schemas.scope import ALL_SERVICES

if TYPE_CHECKING:
    from store.dead_letters import DeadLetters, StoredDeadLetter

app = typer.Typer(
    help="Lines that could not be stored: list, show, replay, drop. Speaks to the database directly.",
    no_args_is_help=True,
)

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings.")]
IdsArgument = Annotated[list[int], typer.Argument(help="Numbers of dead letters, as `list` shows them.")]
_Answer = TypeVar("_Answer")


def _with_letters(config: Path | None, action: Callable[[DeadLetters], Awaitable[_Answer]]) -> _Answer:
    from store.dead_letters import DeadLetters

    settings = read_settings(config, "dead")

    async def run() -> _Answer:
        async with opened_database(settings, "dead") as database:
            return await action(DeadLetters(database, settings.layout))

    return asyncio.run(run())


def _time(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1_000_000, UTC).isoformat(timespec="seconds")


def _as_json(letter: StoredDeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "died_at": _time(letter.died_at_us),
        "service_name": letter.service_name,
        "reason": letter.reason,
        "detail": letter.detail,
        "log_id": str(letter.log_id) if letter.log_id is not None else None,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "line_index": letter.line_index,
        "line": letter.line.decode(errors="replace"),
    }


@app.command("list")
def list_letters(
    service: Annotated[str | None, typer.Option(help="Only this service.")] = None,
    reason: Annotated[
        str | None,
        typer.Option(
            help="Only this reason: undecodable, refused, timestamp, key_reused, mismatch, missing, no_frame."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most to show.")] = 50,
    before: Annotated[int | None, typer.Option(help="Go on with numbers below this one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False,
    config: ConfigOption = None,
) -> None:
    """Newest first. Exit code 1 when there is none."""

    async def page(letters: DeadLetters) -> list[StoredDeadLetter]:
        return await letters.page(
            allowed=ALL_SERVICES, before_id=before, service_name=service, reason=reason, limit=limit
        )

    found = _with_letters(config, page)
    for letter in found:
        if as_json:
            print(json.dumps(_as_json(letter), ensure_ascii=False))
        else:
            print(
                f"{letter.id}  {_time(letter.died_at_us)}  {letter.service_name or '-'}  {letter.reason}"
                f"  {harmless(letter.detail)}"
            )
    if not found:
        print("no dead letters")
        raise typer.Exit(1)


@app.command()
def show(
    number: Annotated[int, typer.Argument(help="Number of the dead letter.")], config: ConfigOption = None
) -> None:
    """The whole letter as JSON."""
    letter = _with_letters(config, lambda letters: letters.show(number, allowed=ALL_SERVICES))
    print(json.dumps(_as_json(letter), ensure_ascii=False, indent=2))


@app.command()
def replay(numbers: IdsArgument, config: ConfigOption = None) -> None:
    """Store the lines after all. A line that is still refused stays, with the reason; exit code 1 then."""

    from store.dead_letters import DeadLetterMissing, ReplayRefused

    async def all_of_them(letters: DeadLetters) -> int:
        refused = 0
        for number in numbers:
            try:
                log_id = await letters.replay(number, allowed=ALL_SERVICES)
                print(f"{number}: stored as log {log_id}")
            except (DeadLetterMissing, ReplayRefused) as error:
                print(f"{number}: {harmless(str(error))}")
                refused += 1
        return refused

    if _with_letters(config, all_of_them):
        raise typer.Exit(1)


@app.command()
def drop(
    numbers: IdsArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
) -> None:
    """Delete the letters for good; the ledger keeps counting them."""
    if not yes:
        typer.confirm(f"Delete {len(numbers)} dead letters for good?", abort=True)

    from store.dead_letters import DeadLetterMissing

    async def all_of_them(letters: DeadLetters) -> int:
        missing = 0
        for number in numbers:
            try:
                await letters.drop(number, allowed=ALL_SERVICES)
                print(f"{number}: dropped")
            except DeadLetterMissing as error:
                print(f"{number}: {error}")
                missing += 1
        return missing

    if _with_letters(config, all_of_them):
        raise typer.Exit(1)
