"""The command `logfeed doctor`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from cli.database import ConfigOption

if TYPE_CHECKING:
    from cli.doctor.findings import Finding
    from cli.settings import Settings


def doctor(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of lines.")] = False,
) -> None:
    """Look at the deployment from this machine, and say what is wrong and what to do about it. Changes nothing.

    Reads the settings that a role here would read, and looks at disks, ports, keys, the database and its settings, clocks, the
    broker and its topic, writers, dead letters, tiers and object storage. A line each: ok, warn (somebody should look) or fail.

    [bold]Exit codes[/bold]
      0  nothing fails
      1  something fails
    """
    from cli.doctor.findings import as_json as json_of
    from cli.doctor.findings import as_text, fail, is_well
    from cli.settings import load_settings
    from ingest.filters.config import build_chain
    from runtime.telemetry import configure_logging
    from schemas.errors import ConfigurationError

    configure_logging(level="error", role="doctor")
    try:
        settings = load_settings(config)
        build_chain(settings.ingest.filters)
    except ConfigurationError as error:
        findings = [fail("settings", str(error), "mend them, and look with `logfeed config check`")]
        print(json_of(findings) if as_json else as_text(findings[0]))
        raise typer.Exit(1) from error
    findings = asyncio.run(_look(settings, as_they_come=not as_json))
    if as_json:
        print(json_of(findings))
    if not is_well(findings):
        raise typer.Exit(1)


async def _look(settings: Settings, *, as_they_come: bool) -> list[Finding]:
    from cli.doctor.findings import as_text
    from cli.doctor.looking import look
    from runtime.clock import SystemClock

    findings = []
    async for finding in look(settings, SystemClock()):
        findings.append(finding)
        if as_they_come:
            print(as_text(finding), flush=True)
    return findings
