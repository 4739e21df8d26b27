"""`logfeed config`: check and show settings before anything runs with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check and explain the configuration.", no_args_is_help=True)

FileArgument = Annotated[
    Path | None, typer.Argument(help="YAML file; else the one LOGFEED_CONFIG names, else environment and defaults.")
]


@app.command()
def check(file: FileArgument = None) -> None:
    """Validate settings and filters as a start would. Exit code 0: usable, 2: not, with every problem named."""
    from cli.settings import load_settings
    from ingest.filters.config import build_chain

    settings = load_settings(file)
    chain = build_chain(settings.ingest.filters)
    print(f"ok: profile {settings.profile}, broker {settings.broker.kind}, {len(chain.names)} filters")


@app.command()
def show(file: FileArgument = None) -> None:
    """Print the settings in force as JSON; secrets are masked."""
    from cli.settings import load_settings

    print(json.dumps(load_settings(file).model_dump(mode="json"), indent=2))


@app.command()
def explain() -> None:
    """List every setting: name, default and what it means. In the environment, http.port is LOGFEED_HTTP__PORT."""
    from cli.settings import Settings
    from runtime.settings import every_field

    for name, field in every_field(Settings):
        default = "the host's name" if field.default_factory is not None else field.get_default()
        print(f"{name} = {'' if default in (None, ()) else default}\n    {field.description}")
