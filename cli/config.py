"""`logfeed config`: check and show settings before anything runs with them."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from cli.usage import Command, group

app = group(help="Check and explain the configuration.")

FileArgument = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="YAML file; else the one LOGFEED_CONFIG names, else environment and defaults."),
]


@app.command(cls=Command)
def check(file: FileArgument = None) -> None:
    """Validate settings and filters as a start would. Exit code 0: usable, 2: not, with every problem named."""
    from access.oidc.settings import is_offered
    from cli.settings import load_settings
    from ingest.filters.config import build_chain

    settings = load_settings(file)
    is_offered(settings.access.oidc, settings.http.public_url)
    chain = build_chain(settings.ingest.filters)
    print(f"ok: profile {settings.profile}, broker {settings.broker.kind}, {len(chain.names)} filters")


@app.command(cls=Command)
def show(file: FileArgument = None) -> None:
    """Print the settings in force as JSON; secrets are masked."""
    from cli.settings import load_settings

    print(json.dumps(load_settings(file).model_dump(mode="json"), indent=2))


@app.command(cls=Command)
def explain() -> None:
    """List every setting: name, default and what it means. In the environment, http.port is LOGFEED_HTTP__PORT."""
    from cli.settings import Settings
    from runtime.settings import every_field

    for name, field in every_field(Settings):
        default = "the host's name" if field.default_factory is not None else field.get_default()
        print(f"{name} = {'' if default in (None, ()) else default}")
        print(textwrap.fill(str(field.description), 110, initial_indent="    ", subsequent_indent="    "))
