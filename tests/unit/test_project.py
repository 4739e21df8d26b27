"""What the repository promises about itself: imports, settings, the API's document, locks, documentation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from cli import openapi
from cli.settings import Settings
from db.migrations import Layout, migrations
from runtime.settings import Section, every_field, load, variable_of

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())  # Any: a parsed file
FIELDS = dict(every_field(Settings))
EMPTY_SAMPLES = {
    "http.trusted_proxies": "[10.0.0.1]",
    "http.public_url": "https://logs.example.org",
    "access.oidc.issuer": "https://login.example.org/realms/one",
    "access.oidc.client_id": "logfeed",
    "access.oidc.client_secret": "word",
    "access.oidc.client_secret_file": "/run/secrets/oidc",
    "access.oidc.default_grants": "['read:public/*']",
    "http.tls_cert": "/etc/logfeed/tls.pem",
    "http.tls_key": "/etc/logfeed/tls.key",
    "http.allowed_origins": '["https://logs.example"]',
    "database.url": "postgresql://user:word@db:5432/logfeed",
    "log.json_lines": "true",
    "tracing.endpoint": "http://collector:4318/v1/traces",
    "tracing.authorization": "Bearer word",
    "broker.sasl_username": "user",
    "broker.sasl_password": "word",
    "broker.ssl_cafile": "/etc/ca.pem",
    "objects.url": "s3://bucket/prefix",
    "objects.endpoint": "https://s3.example.org:9000",
    "objects.region": "eu-central-1",
    "lake.warehouse": "s3://bucket/lake",
    "connections.metrics": '[{"name": "quiet", "labels": ["quiet for"], "unit": "s"}]',
    "lake.segments": "file:///mnt/segments",
    "retention.classes": '[{"name": "quiet", "days": 3, "max_level": "DEBUG"}]',
    "tiers.directory": "/srv/segments",
    "ingest.key_rate.logs_per_s": "5000.0",
    "ingest.key_rate.bytes_per_s": "5000000.0",
    "ingest.service_rates.logs_per_second": "5000.0",
    "ingest.service_rates.burst": "9000.0",
    "alerts.rules": "/etc/logfeed/rules",
    "alerts.channels": '{"ops": {"type": "topic"}}',
    "alerts.default_channels": "[ops]",
    "alerts.allowed_networks": "[10.1.0.0/16]",
    "agent.ingest_url": "https://ingest.example.org",
    "agent.api_key_file": "/etc/logfeed/key",
    "agent.ca_file": "/etc/ca.pem",
    "agent.address": "http://10.0.0.5:8085",
    "agent.tls_cert": "/etc/logfeed/tls.pem",
    "agent.tls_key": "/etc/logfeed/tls.key",
    "agent.syslog.tcp_port": "6514",
    "agent.syslog.udp_port": "5514",
    "agent.syslog.service": "syslog/all",
    "database.replicas": "[postgresql://logfeed:secret@db2:5432/logfeed]",
    "hosts.networks": "[10.1.0.0/16]",
    "hosts.ca_file": "/etc/ca.pem",
    "routing.services": "[shop, pay/*]",
    "alerts.inhibitions": '[{"source": ["severity=critical"], "target": ["severity=info"]}]',
    "ingest.filters": '[{"type": "level", "name": "quiet", "minimum": "WARN"}]',
}
"""A value for settings whose default is none, or a list."""
PARTNERS = {
    "http.tls_cert": "http.tls_key",
    "http.tls_key": "http.tls_cert",
    "agent.tls_cert": "agent.tls_key",
    "agent.tls_key": "agent.tls_cert",
}
"""Settings that need another one."""
NEEDED_BESIDE = {"alerts.default_channels": ["alerts.channels"]}
"""Settings without which another has no value that fits."""
DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
LOCKS = [
    "requirements.lock",
    "requirements-lake.lock",
    "requirements-mcp.lock",
    "requirements-traces.lock",
    "requirements-test.lock",
    "requirements-long.lock",
]


@cache
def files() -> list[Path]:
    """Every text file that is, or is about to be, in the repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_nobody_imports_what_it_must_not() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Settings


def _sections(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        yield prefix + name, field
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _sections(field.annotation, f"{prefix}{name}.")


def test_every_setting_is_documented_and_has_a_default() -> None:
    for name, field in _sections(Settings):
        assert field.description, f"{name} has no description"
        assert field.description.strip().endswith((".", ")")), f"{name}: its description is no sentence"
        assert not field.is_required(), f"{name} has no default"


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_can_be_set_in_the_environment(name: str) -> None:
    default = FIELDS[name].get_default(call_default_factory=True)
    if isinstance(default, bool):
        text = str(not default)
    elif default is None or isinstance(default, tuple):
        text = EMPTY_SAMPLES[name]
    else:
        text = str(default)
    environment = {variable_of(name): text}
    if name in PARTNERS:
        environment[variable_of(PARTNERS[name])] = "/etc/logfeed/other"
    environment |= {variable_of(other): EMPTY_SAMPLES[other] for other in NEEDED_BESIDE.get(name, [])}
    found: Any = load(Settings, file=None, environment=environment)
    for part in name.split("."):
        found = getattr(found, part)
    if name in ("ingest.filters", "retention.classes", "connections.metrics"):
        assert [item.name for item in found] == ["quiet"]
    elif name == "alerts.inhibitions":
        assert found[0].target == ("severity=info",)
    elif name == "database.replicas":
        assert [item.get_secret_value() for item in found] == yaml.safe_load(text)
    elif isinstance(found, tuple):
        assert [str(item) for item in found] == yaml.safe_load(text)
    elif isinstance(found, SecretStr):
        assert found.get_secret_value() == text
    else:
        assert str(found).lower() == text.lower()


# The API


def test_committed_api_document_is_the_one_that_is_served() -> None:
    assert (ROOT / "schemas" / "openapi.json").read_text() == openapi.render(), "run `make openapi`"


def _operations() -> list[tuple[str, dict[str, Any]]]:
    paths = openapi.document()["paths"]
    return [(f"{verb.upper()} {path}", operation) for path, verbs in paths.items() for verb, operation in verbs.items()]


@pytest.mark.parametrize(("name", "operation"), _operations())
def test_every_operation_is_described(name: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert len(operation["description"]) > 20
    assert operation["tags"]
    assert re.fullmatch(r"[a-z0-9_]+", operation["operationId"])
    for parameter in operation.get("parameters", []):
        assert parameter["description"], f"{parameter['name']} is not described"
    assert any(code.startswith(("2", "303")) for code in operation["responses"])
    for code, response in operation["responses"].items():
        assert response["description"] not in ("", "Successful Response", "Validation Error"), code
        if code in ("204", "303", "304"):
            assert "content" not in response
        elif not code.startswith("2") and " /api/v1/" in name:  # others speak other protocols
            assert list(response["content"]) == ["application/problem+json"], code
        else:
            assert response["content"], code


@pytest.mark.parametrize(("name", "operation"), _operations())
def test_every_operation_of_the_api_says_when_to_retry(name: str, operation: dict[str, Any]) -> None:
    if " /api/v1/" in name:
        assert {"422", "503"} <= set(operation["responses"])


def test_operations_have_different_names_and_known_tags() -> None:
    names = [operation["operationId"] for _, operation in _operations()]
    assert len(set(names)) == len(names)
    described = {tag["name"] for tag in openapi.document()["tags"]}
    assert {tag for _, operation in _operations() for tag in operation["tags"]} == described


def test_references_of_the_api_document_lead_somewhere() -> None:
    document = openapi.document()
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


# What is installed


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_a_hash_for_every_package_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    joined = [
        line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    assert len(joined) > 20
    for line in joined:
        assert re.match(r"[a-z0-9._-]+==\S+ ", line), line[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), line[:80]


def test_locks_hold_what_the_project_asks_for() -> None:
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    wanted = {"requirements.lock": project["dependencies"] + extras["build"]}
    wanted["requirements-lake.lock"] = wanted["requirements.lock"] + extras["lake"]
    wanted["requirements-mcp.lock"] = wanted["requirements.lock"] + extras["mcp"]
    wanted["requirements-traces.lock"] = wanted["requirements.lock"] + extras["traces"]
    wanted["requirements-test.lock"] = wanted["requirements-lake.lock"] + extras["mcp"] + extras["test"]
    wanted["requirements-long.lock"] = project["dependencies"] + extras["long"]
    for lock, requirements in wanted.items():
        locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / lock).read_text(), re.MULTILINE))
        names = {re.match(r"[A-Za-z0-9._-]+", text)[0].lower() for text in requirements}  # type: ignore[index]  # all match
        assert names <= locked, f"run `make lock`: {lock} lacks {names - locked}"


def test_no_file_names_the_host_of_a_registry() -> None:
    """Where packages come from is the machine's setting, not ours."""
    dot = r"\."
    hosts = (
        ("py" + "pi", "org"),
        ("python" + "hosted", "org"),
        ("npm" + "js", "(org|com)"),
        ("yarn" + "pkg", "com"),
        ("maven", "apache", "org/maven2"),
        ("re" + "po1", "maven"),
        ("deb", "deb" + "ian", "org"),
        ("ftp", "[a-z.]*deb" + "ian", "org"),
        ("security", "deb" + "ian", "org"),
        ("archive", "ubun" + "tu", "com"),
        ("cra" + "tes", "io"),
    )
    pattern = re.compile("|".join(dot.join(parts) for parts in hosts).encode(), re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}: {hit[0].decode()}"
        for path in files()
        for hit in pattern.finditer(path.read_bytes())
    ]
    assert found == []


def test_locks_agree_so_that_one_can_be_installed_over_another() -> None:
    """A package may have a version for each Python, but the same ones in every lock that names it."""
    found: dict[str, set[frozenset[str]]] = {}
    for lock in LOCKS:
        pins: dict[str, set[str]] = {}
        for name, version in re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE):
            pins.setdefault(name, set()).add(version)
        for name, versions in pins.items():
            found.setdefault(name, set()).add(frozenset(versions))
    assert {name: versions for name, versions in found.items() if len(versions) > 1} == {}


def test_migrations_are_numbered_without_gaps() -> None:
    for layout in Layout:
        assert [migration.version for migration in migrations(layout)] == list(range(1, len(migrations(layout)) + 1))
    listed = {path.name for path in (ROOT / "db" / "migrations").glob("*.sql")}
    pattern = re.compile(r"\d{4}_[a-z_]+(\.native|\.timescale)?\.sql")
    assert all(pattern.fullmatch(name) for name in listed)
    native = {name.replace(".native.", ".timescale.") for name in listed if ".native." in name}
    assert native == {name for name in listed if ".timescale." in name}


# What is written


def test_changelog_tells_of_this_version() -> None:
    headings = re.findall(r"^## \[?([^\]\s]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in ("Unreleased", PYPROJECT["project"]["version"])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_of_documents_lead_somewhere(document: str) -> None:
    text = re.sub(r"(?m)^    .*$", "", (ROOT / document).read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target and not target.startswith(("#", "mailto:")):
            assert ((ROOT / document).parent / target.split("#")[0]).exists(), f"{document}: {target} does not exist"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_in_documents_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = re.findall(r"`make ([a-z-]+)|^    make ([a-z-]+)", (ROOT / document).read_text(), re.MULTILINE)
    assert {first or second for first, second in code} <= targets


def test_every_make_target_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    described = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    assert set(phony[1].split()) - described == {"install", "install-test"}, "what others depend on needs no words"
    assert described <= set(phony[1].split())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_settings_in_documents_exist(document: str) -> None:
    spelled = set(re.findall(r"\bLOGFEED_\w+__\w+", (ROOT / document).read_text())) - {"LOGFEED_SECTION__FIELD"}
    assert spelled <= {variable_of(name) for name in FIELDS}
