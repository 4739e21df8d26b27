"""Units of systemd: they name what there is, keep roles from what they need not, and give them the time that they take."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest
from typer.main import get_command

from cli.main import app
from cli.settings import Settings, load_settings
from runtime.settings import every_field, variable_of
from runtime.stopping import STOP_S

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "infra/systemd"
UNITS: Final = sorted(path.name for path in FOLDER.glob("*.service"))
ROLES: Final = ("ingest", "query", "write", "tier", "alert", "mine", "route")
HARDENING: Final = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "RestrictSUIDSGID": "yes",
    "RestrictNamespaces": "yes",
    "SystemCallArchitectures": "native",
    "User": "logfeed",
}
every_unit = pytest.mark.parametrize("name", UNITS)


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """Section -> key -> values, in order. Fails on a line that is none."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in (FOLDER / name).read_text().splitlines():
        if re.fullmatch(r"\[\w+\]", line):
            section = line[1:-1]
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, f"{name}: {line!r} is no setting"
            found[section][key].append(value)
    return found


def test_there_is_a_unit_for_roles_the_migration_everything_the_canary_and_the_agent() -> None:
    names = ("logfeed-agent", "logfeed-canary", "logfeed-migrate", "logfeed-up", "logfeed@")
    assert [f"{name}.service" for name in names] == UNITS


@every_unit
def test_no_unit_has_rights_that_it_needs_not(name: str) -> None:
    service = unit(name)["Service"]
    state = "logfeed-agent" if name == "logfeed-agent.service" else "logfeed"
    assert {key: service[key][-1] for key in HARDENING} == HARDENING
    assert service["StateDirectory"] == [state]
    assert service["SystemCallFilter"] == ["@system-service", "~@privileged"]
    assert service["RestrictAddressFamilies"] == ["AF_INET AF_INET6 AF_UNIX"]


@every_unit
def test_units_run_commands_of_the_program(name: str) -> None:
    (command,) = unit(name)["Service"]["ExecStart"]
    program, *words = command.split()
    assert program == "/opt/logfeed/bin/logfeed"
    root = get_command(app)
    commands: dict[str, object] = root.commands  # type: ignore[attr-defined]  # typer has a click of its own
    for word in ROLES if words[0] == "%i" else (words[0],):
        assert word in commands


@every_unit
def test_a_configuration_that_cannot_work_is_not_tried_for_ever(name: str) -> None:
    service = unit(name)["Service"]
    if name == "logfeed-canary.service":
        assert service["Restart"] == ["always"], "a server that refuses may let it in later"
    else:
        assert service["RestartPreventExitStatus"] == ["2"]


def test_roles_are_given_the_time_that_a_stop_takes() -> None:
    assert int(unit("logfeed@.service")["Service"]["TimeoutStopSec"][0]) > STOP_S
    from cli.up import _ALL_STOP_S

    assert int(unit("logfeed-up.service")["Service"]["TimeoutStopSec"][0]) > _ALL_STOP_S


def test_the_agent_remembers_where_it_may_write_and_has_time_to_end() -> None:
    from agent.serving import GRACE_S
    from agent.settings import AgentSettings
    from agent.shipping.shipper import LAST_ANSWER_S

    service = unit("logfeed-agent.service")["Service"]
    assert Path("/var/lib") / service["StateDirectory"][0] == AgentSettings().state_dir
    assert int(service["TimeoutStopSec"][0]) > GRACE_S + LAST_ANSWER_S


def variables() -> dict[str, str]:
    lines = (FOLDER / "logfeed.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_setting_of_the_environment_file_exists_and_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {variable_of(name) for name, _ in every_field(Settings)}
    assert variables().keys() <= known
    for name in [name for name in os.environ if name.startswith("LOGFEED_")]:
        monkeypatch.delenv(name)
    for name, value in variables().items():
        monkeypatch.setenv(name, value)
    settings = load_settings(None)
    assert settings.profile == "full"
    assert settings.segment_directory().is_relative_to("/var/lib/logfeed"), "the one place that roles may write to"
    ports = [
        section.health_port
        for section in (settings.writer, settings.tiers, settings.alerts, settings.patterns, settings.routing)
    ]
    assert len(set(ports)) == 5


def _installed(directory: Path) -> list[Path]:
    """The units with a program that there is, and users that there are."""
    made = []
    for name in UNITS:
        text = (FOLDER / name).read_text().replace("/opt/logfeed/bin/logfeed", sys.executable)
        path = directory / name.replace("@.", "@ingest.")
        path.write_text(text)
        made.append(path)
    return made


needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")


@needs_systemd
def test_systemd_takes_them(tmp_path: Path) -> None:
    units = _installed(tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, units)],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


@needs_systemd
@every_unit
def test_systemd_finds_little_exposed(name: str, tmp_path: Path) -> None:
    path = tmp_path / name.replace("@.", "@ingest.")
    path.write_text((FOLDER / name).read_text())
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=25", "--no-pager", str(path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-600:] + done.stderr
