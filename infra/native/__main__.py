"""`python -m infra.native install` and `python -m infra.native services start|stop|status [--dir DIR]`.

`services start` prints shell `export` lines on standard output and everything else on standard error, so that
`eval "$(infra/native/services start)"` sets up a shell. Commands on the same directory wait for one another.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from infra.native.errors import NativeError
from infra.native.install import install_kafka, install_timescale, say
from infra.native.kafka import KafkaNode
from infra.native.places import locked, open_to_all, reachable_home, server_account, state_root
from infra.native.timescale import TimescaleNode

EXIT_FAILED = 1
EXIT_NOT_RUNNING = 3  # as init scripts have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the process's exit code."""
    parser = argparse.ArgumentParser(prog="infra.native", description="Real Kafka and TimescaleDB without Docker")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="download both servers into the cache")
    services = commands.add_parser("services", help="run both servers in the background")
    services.add_argument("action", choices=["start", "stop", "status"])
    services.add_argument("--dir", type=Path, help="where data, logs and state live")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "install":
            return _install()
        return _services(chosen.action, chosen.dir)
    except NativeError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED


def _install() -> int:
    print(install_kafka())
    print(install_timescale())
    return 0


def _services(action: str, directory: Path | None) -> int:
    account = server_account()
    home = reachable_home((directory or state_root(account)).expanduser().absolute(), account)
    kafka = home / "kafka"
    timescale = home / "timescale"
    if action != "start" and not home.exists():
        say(f"nothing was ever started in {home}")
        return 0 if action == "stop" else EXIT_NOT_RUNNING
    open_to_all(home)
    with locked(home / ".lock"):
        nodes = (KafkaNode(kafka, die_with_parent=False), TimescaleNode(timescale, die_with_parent=False))
        match action:
            case "start":
                return _start(*nodes)
            case "stop":
                return _stop(*nodes)
            case _:
                return _status(*nodes)


def _start(kafka: KafkaNode, timescale: TimescaleNode) -> int:
    started = time.monotonic()
    mine = [node for node in (kafka, timescale) if node.pid is None]
    try:
        kafka.spawn()
        timescale.spawn()
        timescale.wait_ready()
        kafka.wait_ready()
    except NativeError:
        for node in mine:
            node.stop()
        raise
    say(f"both answer after {time.monotonic() - started:.1f} s; data and logs: {kafka.directory.parent}")
    settings = {
        "LOGFEED_PROFILE": "full",
        "LOGFEED_DATABASE__URL": timescale.url,
        "LOGFEED_BROKER__BOOTSTRAP": kafka.bootstrap,
    }
    for name, value in settings.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _stop(kafka: KafkaNode, timescale: TimescaleNode) -> int:
    kafka.stop()
    timescale.stop()
    say("stopped; the data stays")
    return 0


def _status(kafka: KafkaNode, timescale: TimescaleNode) -> int:
    for node in (kafka, timescale):
        pid = node.pid
        answer = "answers" if pid and node.answers() else "does not answer"
        print(f"{node.name}: " + (f"process {pid}, 127.0.0.1:{node.port()}, {answer}" if pid else "not running"))
    return 0 if kafka.pid and timescale.pid else EXIT_NOT_RUNNING


if __name__ == "__main__":
    sys.exit(main())
