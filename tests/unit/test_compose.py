"""The compose file, the image and the native servers promise the same; no Docker engine is needed to hold them to it.

The format is checked against a small schema of our own (the official one is in no installable Python package).
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from infra.native.install import KAFKA_VERSION, POSTGRES_MAJOR, TIMESCALE_VERSION
from infra.native.kafka import BROKER_SETTINGS, JVM_OPTIONS
from infra.native.timescale import INITDB_ARGUMENTS, TIMESCALE_SETTINGS

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "up",
    "demo",
    "ingest",
    "write",
    "query",
    "tier",
    "alert",
    "mine",
    "route",
    "db",
    "dead",
    "import",
    "logs",
    "config",
    "agent",
}
ONE_SHOT = {"migrate"}
ROLES = {"migrate", "ingest", "writer", "query", "tier", "alert", "mine", "route"}
AGENTS = {"agent-1", "agent-2", "agent-3"}

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())  # Any: a parsed file
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

every_service = pytest.mark.parametrize("name", sorted(SERVICES))


def test_file_is_valid_compose() -> None:
    schema = json.loads((ROOT / "tests/data/compose-schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(COMPOSE)


def test_all_parts_of_the_full_profile_are_there() -> None:
    assert set(SERVICES) == {"kafka", "timescale"} | ROLES | AGENTS


@every_service
def test_each_service_says_whether_it_is_healthy_or_runs_once(name: str) -> None:
    service = SERVICES[name]
    assert ("healthcheck" in service) != (name in ONE_SHOT)
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")


@every_service
def test_images_are_pinned_to_a_version(name: str) -> None:
    tag = SERVICES[name]["image"].partition(":")[2]
    assert re.match(r"\d+\.\d+\.\d+", tag), f"{name}: {tag!r} names no exact version"


@every_service
def test_nothing_runs_as_root_or_gains_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["user"].split(":")[0] not in {"", "0", "root"}
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


@every_service
def test_every_service_has_limits(name: str) -> None:
    assert set(SERVICES[name]["deploy"]["resources"]["limits"]) == {"cpus", "memory"}


@every_service
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@every_service
def test_names_lead_somewhere(name: str) -> None:
    service = SERVICES[name]
    volumes = {volume.split(":")[0] for volume in service.get("volumes", [])}
    assert volumes <= set(COMPOSE["volumes"])
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    for needed, how in service.get("depends_on", {}).items():
        assert needed in SERVICES
        expected = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
        assert how["condition"] == expected


def test_data_outlives_its_container() -> None:
    assert SERVICES["kafka"]["volumes"] == [f"kafka-data:{SERVICES['kafka']['environment']['KAFKA_LOG_DIRS']}"]
    assert SERVICES["timescale"]["volumes"] == ["timescale-data:/var/lib/postgresql/data"]
    directory = SERVICES["tier"]["environment"]["LOGFEED_TIERS__DIRECTORY"]
    assert SERVICES["tier"]["volumes"] == [f"segments:{directory}"]
    cache = SERVICES["query"]["environment"]["LOGFEED_OBJECTS__CACHE_DIR"]
    assert SERVICES["query"]["volumes"] == [f"segments:{directory}:ro", f"object-cache:{cache}"]
    assert cache in (ROOT / "infra/Dockerfile").read_text()
    assert directory in (ROOT / "infra/Dockerfile").read_text(), "a volume has the owner of the image's directory"


def test_storage_is_reachable_for_the_roles_alone() -> None:
    assert COMPOSE["networks"]["backend"] == {"internal": True}
    for name in ("kafka", "timescale"):
        assert SERVICES[name]["networks"] == ["backend"]
        assert "ports" not in SERVICES[name]


@pytest.mark.parametrize("name", sorted(ROLES))
def test_roles_are_commands_of_the_program_in_the_full_profile(name: str) -> None:
    service = SERVICES[name]
    assert service["command"][0] in COMMANDS
    assert service["environment"]["LOGFEED_PROFILE"] == "full"
    assert service["environment"]["LOGFEED_BROKER__BOOTSTRAP"] == "kafka:9092"
    assert "@timescale:5432/logfeed" in service["environment"]["LOGFEED_DATABASE__URL"]


@pytest.mark.parametrize("name", sorted(ROLES))
def test_every_setting_of_a_role_exists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cli.settings import load_settings  # here alone: the other promises hold without the program

    for key, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(key, value)
    loaded = load_settings(None)
    assert loaded.profile == "full"


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_agents_are_hosts_of_their_own_that_the_server_reaches(name: str) -> None:
    from agent.settings import load_agent

    service = SERVICES[name]
    assert service["profiles"] == ["agents"]
    assert service["command"] == ["agent"]
    settings = load_agent(None, environment=service["environment"]).agent
    assert settings.name == name.replace("agent", "host")
    assert settings.shown_address(settings.port) == f"http://{name}:{settings.port}"
    query, ingest = SERVICES["query"]["environment"], SERVICES["ingest"]["environment"]
    assert settings.url == f"http://query:{query['LOGFEED_HTTP__PORT']}"
    assert settings.ingest_url == f"http://ingest:{ingest['LOGFEED_HTTP__PORT']}"
    (root,) = settings.roots.values()
    host = settings.name
    assert service["volumes"] == [f"{host}-logs:{root.path}:ro", f"{host}-state:{settings.state_dir}"]
    assert str(settings.state_dir) in (ROOT / "infra/Dockerfile").read_text()
    assert f"127.0.0.1:{settings.port}/livez" in service["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", ["ingest", "query"])
def test_http_roles_are_ready_where_they_listen(name: str) -> None:
    service = SERVICES[name]
    port = service["environment"]["LOGFEED_HTTP__PORT"]
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://127.0.0.1:{port}/readyz" in service["healthcheck"]["test"][-1]


@every_service
def test_python_health_checks_compile(name: str) -> None:
    test = SERVICES[name].get("healthcheck", {}).get("test", [])
    if test[1:3] == ["python", "-c"]:
        ast.parse(test[3])


def test_containers_and_native_servers_are_the_same() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert SERVICES["timescale"]["image"] == f"timescale/timescaledb:{TIMESCALE_VERSION}-pg{POSTGRES_MAJOR}"
    broker = SERVICES["kafka"]["environment"]
    assert {key: broker.get("KAFKA_" + key.upper().replace(".", "_")) for key in BROKER_SETTINGS} == BROKER_SETTINGS
    assert broker["KAFKA_JVM_PERFORMANCE_OPTS"].split() == list(JVM_OPTIONS)
    assert SERVICES["timescale"]["command"] == [
        "postgres",
        *(f"-c{key}={value}" for key, value in TIMESCALE_SETTINGS.items()),
    ]
    assert SERVICES["timescale"]["environment"]["POSTGRES_INITDB_ARGS"].split() == list(INITDB_ARGUMENTS)


def test_one_broker_is_not_called_safe_from_a_power_cut() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert "not a power cut" in text
    assert "min.insync.replicas=2" in text


def test_image_is_built_from_pinned_hashed_wheels_and_runs_unprivileged() -> None:
    text = (ROOT / "infra/Dockerfile").read_text()
    page, *bases = re.findall(r"^FROM (\S+)", text, flags=re.MULTILINE)
    assert re.fullmatch(r"node:\d+\.\d+\.\d+-\w+-slim", page)
    assert "npm ci --ignore-scripts" in text
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.12\.\d+-slim-\w+", base) for base in bases)
    assert "--require-hashes --only-binary=:all: -r /src/requirements-lake.lock" in text
    assert re.findall(r"^USER (\S+)", text, flags=re.MULTILINE) == [SERVICES["ingest"]["user"]]
    assert "apt-get" not in text


def test_image_gets_exactly_the_packages_of_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    files = {"pyproject.toml", "requirements-lake.lock", "requirements-traces.lock", "README.md", "LICENSE"}
    assert allowed == packages | files | {"web", "infra/page_in_wheel.py"}
