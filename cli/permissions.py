"""The options that say what a key or user may, the same for both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

_SERVICE = "SERVICE"

WriteOption = Annotated[
    list[str] | None, typer.Option("--write", metavar=_SERVICE, help="May send logs of it; repeatable, like all these.")
]
ReadOption = Annotated[
    list[str] | None, typer.Option("--read", metavar=_SERVICE, help="May find its logs: pages, look-ups, ledger.")
]
TailOption = Annotated[list[str] | None, typer.Option("--tail", metavar=_SERVICE, help="May watch its logs live.")]
ExportOption = Annotated[
    list[str] | None, typer.Option("--export", metavar=_SERVICE, help="May take its logs out in bulk.")
]
AlertOption = Annotated[
    list[str] | None, typer.Option("--alert", metavar=_SERVICE, help="May have alerts about its logs.")
]
AdminOption = Annotated[
    list[str] | None,
    typer.Option(
        "--admin", metavar=_SERVICE, help="May all of these but write; of logfeed/audit: read who looked at what."
    ),
]

HostOption = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="HOST", help="May register this host, or PREFIX*: for `logfeed agent`."),
]


def grants_of(**services: Sequence[str] | None) -> list[str]:
    """Permission -> services (of `host`: hosts), as grants. Raises AccountError."""
    from access.grants import Permission, check_grants, grant

    return check_grants(grant(Permission(name), each) for name, those in services.items() for each in those or ())
