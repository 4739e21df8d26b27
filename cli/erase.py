"""`logfeed erase`: remove the logs that match a query for good, wherever they lie, with a certificate."""

from __future__ import annotations

import asyncio
import getpass
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.database import ConfigOption, read_settings
from cli.terminal import harmless
from cli.tier import bars

if TYPE_CHECKING:
    from cli.settings import Settings
    from store.tiers.erasing import Certificate, Remaining
    from store.tiers.progress import Progress


def erase(
    where: Annotated[
        str,
        typer.Option(
            "--where", metavar="QUERY", help="Which logs: a query as of `logfeed logs`. Look at them there first."
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait until replaced files are deleted too: ten minutes, in which no rows move."),
    ] = False,
    by: Annotated[
        str | None, typer.Option("--by", metavar="NAME", help="Who asks for it, for the certificate (default: you).")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where the certificate goes (default: standard output)."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Erase logs that match, from tables, files, object storage and dead letters; write down what went.

    Erases what was acknowledged before the command began. Runs where the files are, and takes over from `logfeed tier`
    meanwhile. The certificate (JSON) says how many logs of which service and day went, and what copies remain for how long.
    """
    from store.tiers.erasing import predicate_of

    predicate_of(where)
    settings = read_settings(config, "erase")
    if not yes:
        typer.confirm(f"Erase all logs that match {harmless(where)!r} for good?", abort=True, err=True)
    if output is not None and (output.exists() or not output.parent.is_dir()):
        problem = "exists" if output.exists() else "cannot be made: there is no such directory"
        raise typer.BadParameter(f"{output} {problem}", param_hint="--output")
    with bars() as progress:
        asyncio.run(_erase(settings, where, by or _who(), output, progress, wait=wait))


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


async def _erase(
    settings: Settings, where: str, by: str, output: Path | None, progress: Progress, *, wait: bool
) -> None:
    """The certificate comes as soon as it is true: what goes wrong while files are waited for does not take it along."""
    from cli.tier_role import leading
    from store.tiers.erasing import Eraser

    async with leading(settings, take_over=True, progress=progress) as (database, tiering):
        eraser = Eraser(
            database,
            tiering,
            settings.segments,
            topic=settings.broker.topic,
            query=where,
            requested_by=by,
            copies=copies(settings),
            progress=progress,
        )
        _write(await eraser.erase(), output)
        if wait:
            await eraser.until_files_are_gone()


def copies(settings: Settings) -> list[Remaining]:
    """What keeps logs, or words of them, that nothing is removed from."""
    from alerts.state import KEPT_DAYS
    from store.tiers.erasing import Remaining

    hours = f"{settings.broker.derived_retention_h:g}"
    if settings.broker.kind == "queue":
        sent = Remaining(
            "the queue of what was sent", "rows are dropped once read and an hour old, or when it passes 1 GiB"
        )
        derived = Remaining(
            "records of derived topics", f"dropped after {hours} hours to a seventh more, or when they pass their bytes"
        )
    else:
        sent = Remaining(f"the records of topic {settings.broker.topic} in Kafka", "as long as its retention.ms says")
        derived = Remaining("records of derived topics in Kafka", f"as long as their retention.ms says ({hours} hours)")
    return [
        sent,
        derived,
        Remaining(
            "messages of alerts, each with three logs at most, and what their channels did with them",
            f"messages are deleted after {KEPT_DAYS} days; ask the channels' owners",
        ),
        Remaining(
            "templates of patterns, which may have words of a few logs (logfeed patterns)",
            f"deleted when nothing was counted under them for {settings.patterns.retention_days} days",
        ),
        Remaining(
            "connections: user, address, version, and of their lines figures and kinds of errors; experiments: name, metadata",
            f"deleted after {settings.store.retention_days} days without a change, when a new one is made",
        ),
        Remaining(
            "bookmarks' notes and saved views, which people have written for themselves",
            "until they remove them, are disabled, or their key is revoked",
        ),
    ]


def _write(certificate: Certificate, output: Path | None) -> None:
    import json

    import msgspec

    text = json.dumps(msgspec.to_builtins(certificate), indent=2, ensure_ascii=False)
    if output is None:
        print(text, flush=True)
        return
    with output.open("x", encoding="utf-8") as file:
        file.write(text + "\n")
    print(
        f"{certificate.rows} logs and {certificate.dead_letters} dead letters erased; certificate: {output}", flush=True
    )
