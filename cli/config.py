"""`logfeed config`: check and show settings before anything runs with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cli.settings import Settings, load_settings
from ingest.filters.config import build_chain
from runtime.settings import Section

app = typer.Typer(help="Check and explain the configuration.", no_args_is_help=True)

FileArgument = Annotated[
    Path | None, typer.Argument(help="YAML file; else the one LOGFEED_CONFIG names, else environment and defaults.")
]


@app.command()
def check(file: FileArgument = None) -> None:
    """Validate settings and filters as a start would. Exit code 0: usable, 2: not, with every problem named."""
    settings = load_settings(file)
    chain = build_chain(settings.ingest.filters)
    print(f"ok: profile {settings.profile}, broker {settings.broker.kind}, {len(chain.names)} filters")


@app.command()
def show(file: FileArgument = None) -> None:
    """Print the settings in force as JSON; secrets are masked."""
    print(json.dumps(load_settings(file).model_dump(mode="json"), indent=2))


@app.command()
def explain() -> None:
    """List every setting: name, default and what it means."""
    for line in _explain(Settings, ""):
        print(line)


def _explain(section: type[Section], prefix: str) -> list[str]:
    lines = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            lines += _explain(inner, f"{prefix}{name}.")
            continue
        default = "host name" if field.default_factory is not None and name == "name" else field.get_default()
        lines.append(f"{prefix}{name} = {default}\n    {field.description}")
    return lines
