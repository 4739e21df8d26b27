"""`logfeed agent`: the agent on a host, and a look at its configuration.

The agent runs as `python -m agent`, which takes this process's place: it is to be small for as long as it runs, and half of
what this command line imports would stay for nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from cli.usage import Command, Group

app = typer.Typer(cls=Group, invoke_without_command=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="YAML file with settings; else the one LOGFEED_CONFIG names."),
]
_SMALL: Final = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""For the C library: it would keep memory of its own for each thread."""


@app.callback()
def run(context: typer.Context, config: ConfigOption = None) -> None:
    """Run the agent on this host: read log files when asked, send their lines, receive syslog.

    Its settings are the section `agent` of the file (docs/agent.md); `logfeed config explain` lists them. The API key
    is in the file that agent.api_key_file names, or in LOGFEED_API_KEY.
    """
    if context.invoked_subcommand is not None:
        context.obj = config
        return
    arguments = [] if config is None else [str(config)]
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-P", "-m", "agent", *arguments], {**os.environ, **_SMALL})


@app.command("check", cls=Command)
def check(context: typer.Context, config: ConfigOption = None) -> None:
    """Validate the agent's settings as a start would, and say what it would do. Exit code 0: usable, 2: not."""
    from agent.roots import Unlisted
    from agent.settings import load_agent, read_api_key

    settings = load_agent(config or context.obj).agent
    key = read_api_key(settings, os.environ)
    for problem in settings.check_folders():
        print(f"warning: {problem}")
    if key is None:
        print("warning: no API key: set agent.api_key_file, or LOGFEED_API_KEY")
    for root in settings.reading_roots():
        files = 0
        for found in root.walk(entries_max=100_000):
            if isinstance(found, Unlisted):
                print(f"warning: {found.text}")
            else:
                files += 1
                if (reason := root.why_not(found.name)) is not None:
                    print(f"warning: {root.name}/{found.name}: {reason}")
        how = "sent" if settings.roots[root.name].ship else "read when asked"
        print(f"{root.name}: {root.path} as {root.service}, {how}, {files} files now")
    print(f"ok: host {settings.name}, server {settings.url}, {len(settings.roots)} roots")
