"""`logfeed`: every command. Exit codes: 0 done, 1 it failed, 2 wrong usage or configuration, 130 interrupted.

Commands import what they run when they run, so that `--help` and every start pay only for what they use.
"""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cli import agent, alerts, config, database, dead, hosts, keys, lake, tier, topics, users
from cli.canary.command import canary
from cli.connections.command import import_connections
from cli.doctor.command import doctor
from cli.erase import erase
from cli.exporting.command import export
from cli.first_keys import (
    DATA_DEFAULT,
    DATA_VARIABLE,
    USER,
    FirstAccess,
    FirstKey,
    api_key_for,
    key_file,
    password_file,
)
from cli.http_client import URL_DEFAULT
from cli.importing.command import import_logs
from cli.logs import logs
from cli.mcp.command import mcp
from cli.patterns import patterns
from cli.status import status
from cli.terminal import harmless
from cli.usage import Command, Group
from runtime.collector import keep_what_exists, look_seldom
from schemas.errors import ConfigurationError, LogfeedError

if TYPE_CHECKING:
    from cli.settings import Settings
    from runtime.stopping import Stop

app = typer.Typer(
    name="logfeed",
    cls=Group,
    help="Collects logs from many services, keeps every accepted line exactly once, and finds any of them again fast.\n\n"
    "Start with [bold]logfeed demo[/bold], or [bold]logfeed up[/bold] without sample traffic.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="YAML file with settings; else the one LOGFEED_CONFIG names."),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Stable name of this process (default: the host's name)."),
]
HostOption = Annotated[
    str | None, typer.Option("--host", metavar="ADDRESS", help="Address to listen on (default 127.0.0.1).")
]
PortOption = Annotated[int | None, typer.Option("--port", "-p", metavar="PORT", help="TCP port (default 8080).")]
TlsCertOption = Annotated[
    Path | None,
    typer.Option("--tls-cert", metavar="FILE", help="PEM certificate (chain) to serve HTTPS with; with --tls-key."),
]
TlsKeyOption = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="PEM private key of --tls-cert, without a password.")
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", "-d", metavar="DIRECTORY", help="Directory that keeps everything (default ./logfeed-data)."),
]

_console = Console(stderr=False, highlight=False)
_errors = Console(stderr=True, highlight=False)


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    import uvloop

    keep_what_exists()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(coroutine)


def _settings(config: Path | None, flags: Mapping[str, Any], role: str) -> Settings:
    from cli.settings import load_settings
    from runtime.telemetry import configure_logging

    settings = load_settings(config, flags)
    configure_logging(level=settings.log.level, json_lines=settings.log.json_lines, role=role)
    return settings


def _show_ready(settings: Settings, *, demo: bool) -> Callable[[str, FirstAccess], None]:
    def show(base_url: str, made: FirstAccess) -> None:
        _console.print(f"\n[bold green]Logfeed is ready[/bold green]  {base_url}")
        _console.print(f"  API documentation  {base_url}/docs")
        _console.print(f"  newest logs        {_asking(settings, base_url)}", markup=False, soft_wrap=True)
        _console.print(f"  data               {settings.data_dir.resolve()}", markup=False, soft_wrap=True)
        if made.password is not None:
            _console.print(f"\nLog in to the page, {base_url}/login, as\n", markup=False, soft_wrap=True)
            _console.print(
                f"  {USER}  {made.password}  the password is in {password_file(settings.data_dir)}",
                markup=False,
                soft_wrap=True,
            )
        if made.keys:
            _console.print("\nKeys, shown this once and kept where the commands on this machine find them:\n")
            for which, key in made.keys.items():
                _console.print(
                    f"  {which:7}{key}  in {key_file(settings.data_dir, which)}", markup=False, soft_wrap=True
                )
        if demo:
            _console.print("\nSample traffic is flowing. Watch it, and follow one of its requests across services:\n")
            for question in ("'level:error' --limit 20", "--order asc --correlation-id ID"):
                _console.print(f"  {_asking(settings, base_url)} {question}", markup=False, soft_wrap=True)
        _console.print("\nSend a log:\n")
        _console.print(
            f"  curl -s {base_url}/api/v1/logs -H 'Content-Type: application/json'{_credentials(settings)} \\\n"
            '    -d \'{"service_name":"hello","level":"INFO","message":"hello, Logfeed"}\'',
            markup=False,
            soft_wrap=True,
        )
        _console.print("\nCtrl-C stops it; the data stays.\n")

    return show


def _credentials(settings: Settings) -> str:
    """The header that carries the key, for a shell; '' where nobody needs one."""
    if not settings.access.enabled:
        return ""
    file = shlex.quote(str(key_file(settings.data_dir, FirstKey.INGEST).resolve()))
    return f' -H "Authorization: Bearer $(cat {file})"'


def _asking(settings: Settings, base_url: str) -> str:
    """`logfeed logs` as it can be typed here: by its path where no shell finds it, with the address and the place of the keys
    where these are others."""
    program, path = "logfeed", Path(sys.argv[0]).absolute()
    if path.name == program and shutil.which(program) is None:
        program = str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    where = "" if base_url == URL_DEFAULT else f" --url {base_url}"
    keys = key_file(settings.data_dir, FirstKey.ADMIN)
    variable = ""
    if settings.access.enabled and keys.resolve() != key_file(Path(DATA_DEFAULT), FirstKey.ADMIN).resolve():
        variable = f"{DATA_VARIABLE}={shlex.quote(str(settings.data_dir.resolve()))} "
    return f"{variable}{program} logs{where}"


def _start(config: Path | None, flags: Mapping[str, Any], *, demo: bool) -> None:
    from cli.settings import Profile

    settings = _settings(config, flags, "demo" if demo else "up")
    if settings.profile is not Profile.EMBEDDED:
        raise ConfigurationError(
            "`up` runs the embedded profile; start the roles of the full profile one by one:"
            " logfeed db migrate, then logfeed ingest, write, query, tier, alert, mine, route (see docker-compose.yml)"
        )
    from cli.demo_connections import run_demo_connections
    from cli.demo_experiments import run_demo_experiments
    from cli.demo_traffic import run_demo_traffic
    from cli.http_client import own_server_trust
    from cli.up import up

    async def beside(base_url: str, stop: Stop) -> None:
        variables = {DATA_VARIABLE: str(settings.data_dir)}
        key = api_key_for(base_url, FirstKey.INGEST, variables)
        trust = own_server_trust(settings.http.tls_cert)
        async with asyncio.TaskGroup() as group:
            for run in (run_demo_traffic, run_demo_experiments, run_demo_connections):
                group.create_task(run(base_url, stop, api_key=key, trust=trust))

    announce = _show_ready(settings, demo=demo)
    _run(up(settings, config=config, announce=announce, beside=beside if demo else None))


def _serve(config: Path | None, flags: Mapping[str, Any], *, ingest: bool, query: bool) -> None:
    from cli.http_role import run_http

    settings = _settings(config, flags, "serve" if ingest and query else "ingest" if ingest else "query")
    _run(run_http(settings, ingest=ingest, query=query))


def _print_version(wanted: bool = True) -> None:
    from importlib.metadata import version

    if wanted:
        print(version("logfeed"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """What stands before a command; the help is the program's."""


@app.command("up", cls=Command)
def up_command(
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    data: DataOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
) -> None:
    """Start everything on this machine: PostgreSQL, ingest, query, a writer, and what works on logs behind it.

    Needs nothing installed and keeps everything in one directory. Ctrl-C stops it; the data stays.
    """
    flags = {"http.host": host, "http.port": port, "data_dir": data, "http.tls_cert": tls_cert, "http.tls_key": tls_key}
    _start(config, flags, demo=False)


@app.command("demo", cls=Command)
def demo_command(
    config: ConfigOption = None, host: HostOption = None, port: PortOption = None, data: DataOption = None
) -> None:
    """Like `up`, with lively sample traffic: several services, requests that cross them, errors.

    The sample logs are stored like any others: choose another --data directory to keep them apart.
    """
    _start(config, {"http.host": host, "http.port": port, "data_dir": data}, demo=True)


app.command("logs", cls=Command)(logs)
app.command("patterns", cls=Command)(patterns)
app.command("export", cls=Command)(export)
app.command("import", cls=Command)(import_logs)
app.command("import-connections", cls=Command)(import_connections)
app.command("mcp", cls=Command)(mcp)
app.command("status", cls=Command)(status)
app.command("canary", cls=Command)(canary)
app.command("doctor", cls=Command)(doctor)


@app.command("serve", cls=Command)
def serve_command(config: ConfigOption = None, host: HostOption = None, port: PortOption = None) -> None:
    """Run ingest and query as one HTTP application (what `up` does)."""
    _serve(config, {"http.host": host, "http.port": port}, ingest=True, query=True)


@app.command("ingest", cls=Command)
def ingest_command(config: ConfigOption = None, host: HostOption = None, port: PortOption = None) -> None:
    """Run the ingestion API: takes logs, filters them, publishes them to the broker."""
    _serve(config, {"http.host": host, "http.port": port}, ingest=True, query=False)


@app.command("query", cls=Command)
def query_command(config: ConfigOption = None, host: HostOption = None, port: PortOption = None) -> None:
    """Run the query API: pages, look-ups, correlations, ledger."""
    _serve(config, {"http.host": host, "http.port": port}, ingest=False, query=True)


@app.command("write", cls=Command)
def write_command(
    config: ConfigOption = None,
    name: NameOption = None,
) -> None:
    """Run a writer: stores what the broker holds, exactly once, and keeps the store in shape."""
    from cli.write_role import run_writer

    _run(run_writer(_settings(config, {"writer.name": name}, "write")))


@app.command("alert", cls=Command)
def alert_command(
    config: ConfigOption = None,
    name: NameOption = None,
) -> None:
    """Evaluate rules over logs as they come, and tell: one process at a time leads, others stand by."""
    from cli.alert_role import run_alerts

    _run(run_alerts(_settings(config, {"alerts.name": name}, "alert")))


@app.command("mine", cls=Command)
def mine_command(
    config: ConfigOption = None,
    name: NameOption = None,
) -> None:
    """Find the patterns of logs as they come, and count them: one process at a time leads, others stand by."""
    from cli.mining_role import run_mining

    _run(run_mining(_settings(config, {"patterns.name": name}, "mine")))


@app.command("route", cls=Command)
def route_command(
    config: ConfigOption = None,
    name: NameOption = None,
) -> None:
    """Fill derived topics (logs.errors, services, routes): one process at a time leads, others stand by."""
    from cli.route_role import run_routes

    _run(run_routes(_settings(config, {"routing.name": name}, "route")))


app.command("erase", cls=Command)(erase)
app.add_typer(agent.app, name="agent")
app.add_typer(alerts.app, name="alerts")
app.add_typer(keys.app, name="keys")
app.add_typer(users.app, name="users")
app.add_typer(database.app, name="db")
app.add_typer(dead.app, name="dead")
app.add_typer(tier.app, name="tier")
app.add_typer(lake.app, name="lake")
app.add_typer(topics.app, name="topics")
app.add_typer(hosts.app, name="hosts")
app.add_typer(config.app, name="config")


@app.command("version", cls=Command)
def version_command() -> None:
    """Print the version."""
    _print_version()


def main() -> None:
    """Entry point: our errors become a line (each problem of a configuration its own) and an exit code, no traceback."""
    look_seldom()  # before a command imports what it runs
    try:
        app()
    except ConfigurationError as error:
        _fail(str(error), 2)
    except LogfeedError as error:
        _fail(" ".join(str(error).split()), 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str, code: int) -> None:
    _errors.print("[red]error:[/red]", end=" ")
    _errors.print(harmless(message, keep_newlines=True), markup=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
