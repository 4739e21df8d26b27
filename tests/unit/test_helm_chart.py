"""The Helm chart, as Helm renders it (infra/helm_chart.py): valid for Kubernetes, without rights, secrets by reference only."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml

from cli.page import PATHS
from infra.helm_chart import (
    CHART,
    KUBERNETES_VERSION,
    RENDERED,
    VALUES,
    chart_digest,
    digest_of,
    helm_program,
    rendered,
)
from runtime.stopping import STOP_S

ROOT: Final = Path(__file__).resolve().parents[2]
NAMES: Final = sorted(path.stem for path in VALUES.glob("*.yaml"))
KUBERNETES: Final = ("1.30", "1.34")
"""Versions whose schemas every document fits: the least that the chart asks for, and what it was rendered for."""
WORKLOADS: Final = ("Deployment", "StatefulSet", "Job")
ROLES: Final = {"ingest", "query", "write", "tier", "alert", "mine", "route"}
Json = dict[str, Any]  # parsed files

every_rendering = pytest.mark.parametrize("name", NAMES)


@cache
def documents(name: str) -> list[Json]:
    return [each for each in yaml.safe_load_all((RENDERED / f"{name}.yaml").read_text()) if each is not None]


def of_kind(name: str, *kinds: str) -> list[Json]:
    return [each for each in documents(name) if each["kind"] in kinds]


def pods(name: str) -> Iterator[tuple[str, Json]]:
    """(component, pod template) of each workload."""
    for each in of_kind(name, *WORKLOADS):
        template = each["spec"]["template"]
        yield template["metadata"]["labels"]["app.kubernetes.io/component"], template


def config_of(name: str, component: str = "config") -> Json:
    """The ConfigMap of the roles, or of the agent."""
    (found,) = (
        each
        for each in of_kind(name, "ConfigMap")
        if each["metadata"]["labels"]["app.kubernetes.io/component"] == component
    )
    return found


def values_of(name: str) -> Json:
    """The chart's, with those of a file over them, as Helm merges."""
    return _merged(
        yaml.safe_load((CHART / "values.yaml").read_text()), yaml.safe_load((VALUES / f"{name}.yaml").read_text())
    )


def _merged(below: Json, above: Json) -> Json:
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merged(below[key], above[key])
    return merged


SCHEMA: Final[Json] = json.loads((CHART / "values.schema.json").read_text())


@every_rendering
def test_renderings_are_of_this_chart(name: str) -> None:
    assert digest_of(RENDERED / f"{name}.yaml") == chart_digest(), "the chart has changed: run `make helm`"


@every_rendering
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_document(name: str, version: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, version, strict=True)
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", document["metadata"]["name"])


@pytest.mark.parametrize(
    "change",
    [{"spec": {"replica": 1}}, {"spec": {"replicas": "two"}}, {"kind": "Deploiment"}, {"apiVersion": "apps/v2"}],
    ids=str,
)
def test_kubernetes_would_refuse_a_mistake(change: Json) -> None:
    deployment = of_kind("least", "Deployment")[0]
    with pytest.raises((kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError)):
        kubernetes_validate.validate(_merged(deployment, change), KUBERNETES[-1], strict=True)


@every_rendering
def test_every_role_runs_and_the_database_is_migrated(name: str) -> None:
    expected = ROLES | {"migrate"} | ({"canary"} if name == "most" else set())
    assert {component for component, _ in pods(name)} == expected
    for component, template in pods(name):
        (container,) = template["spec"]["containers"]
        if component in ROLES:
            assert container["args"] == [component]
    (writer,) = (each for each in of_kind(name, "StatefulSet"))
    assert writer["metadata"]["labels"]["app.kubernetes.io/component"] == "write", "writers keep their names"


@every_rendering
def test_no_pod_has_rights_that_it_needs_not(name: str) -> None:
    for component, template in pods(name):
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False, component
        context = pod["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"]) == (True, 10001)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"], component
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
        assert all(not ({"hostPath"} & set(volume)) for volume in pod.get("volumes", []))


def test_the_account_is_that_of_the_image() -> None:
    assert "USER 10001:10001" in (ROOT / "infra/Dockerfile").read_text()


@every_rendering
def test_secrets_are_referred_to_and_never_written(name: str) -> None:
    assert not of_kind(name, "Secret")
    for component, template in pods(name):
        for container in template["spec"]["containers"]:
            for variable in container.get("env", []):
                if re.search(r"URL$|PASSWORD|API_KEY|SECRET", variable["name"]):
                    assert set(variable) == {"name", "valueFrom"}, f"{component}: {variable['name']}"
                    assert set(variable["valueFrom"]) == {"secretKeyRef"}
    config = config_of(name)
    assert not re.search(r"password|secret|postgresql://", config["data"]["logfeed.yaml"])


@every_rendering
def test_every_role_starts_with_settings_that_are_valid(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cli.settings import load_settings

    config = config_of(name)
    file = tmp_path / "logfeed.yaml"
    file.write_text(config["data"]["logfeed.yaml"])
    for component, template in pods(name):
        if component == "canary":
            continue
        (container,) = template["spec"]["containers"]
        with monkeypatch.context() as patch:
            for variable in container["env"]:
                if variable["name"].startswith("LOGFEED_"):
                    patch.setenv(variable["name"], variable.get("value", "postgresql://u:p@h:5432/logfeed"))
            patch.setenv("LOGFEED_CONFIG", str(file))
            settings = load_settings(None)
        assert settings.profile == "full"
        assert settings.segment_directory() == Path("/segments")
        ports = {port["containerPort"] for port in container.get("ports", [])}
        if component in ("ingest", "query"):
            assert (settings.http.host, {settings.http.port}) == ("0.0.0.0", ports)
        elif component in ROLES:
            health = {
                "write": (settings.writer.health_host, settings.writer.health_port),
                "tier": (settings.tiers.health_host, settings.tiers.health_port),
                "alert": (settings.alerts.health_host, settings.alerts.health_port),
                "mine": (settings.patterns.health_host, settings.patterns.health_port),
                "route": (settings.routing.health_host, settings.routing.health_port),
            }[component]
            assert (health[0], {health[1]}) == ("0.0.0.0", ports)


@every_rendering
def test_probes_ask_what_a_role_answers_and_a_stop_has_its_time(name: str) -> None:
    for component, template in pods(name):
        if component == "migrate":
            continue
        (container,) = template["spec"]["containers"]
        (port,) = container["ports"]
        assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": port["name"]}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}
        if component in ROLES:
            pause_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            assert template["spec"]["terminationGracePeriodSeconds"] > STOP_S + pause_s
            annotations = template["metadata"]["annotations"]
            assert annotations["prometheus.io/port"] == str(port["containerPort"])


@every_rendering
def test_what_is_mounted_is_there(name: str) -> None:
    claims = {each["metadata"]["name"] for each in of_kind(name, "PersistentVolumeClaim")}
    maps = {each["metadata"]["name"] for each in of_kind(name, "ConfigMap")}
    given = values_of(name)["segments"]["existingClaim"]
    for component, template in pods(name):
        volumes = {volume["name"]: volume for volume in template["spec"].get("volumes", [])}
        (container,) = template["spec"]["containers"]
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert set(mounts) == set(volumes), component
        if "config" in volumes:
            assert volumes["config"]["configMap"]["name"] in maps
        assert ("segments" in volumes) == (component in ("query", "tier"))
        if "segments" in volumes:
            claim = volumes["segments"]["persistentVolumeClaim"]["claimName"]
            assert claim in claims | {given} - {""}
            assert mounts["segments"]["readOnly"] == (component == "query"), "only one role writes files"
    for claim in of_kind(name, "PersistentVolumeClaim"):
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@every_rendering
def test_selectors_find_the_pods_they_mean(name: str) -> None:
    labels = {component: template["metadata"]["labels"] for component, template in pods(name)}
    for each in of_kind(name, "Service", "PodDisruptionBudget", "NetworkPolicy", "Deployment", "StatefulSet"):
        spec = each["spec"]
        selector = spec.get("podSelector") or spec["selector"]
        wanted = selector.get("matchLabels", selector)
        found = [component for component, has in labels.items() if wanted.items() <= has.items()]
        meant = each["metadata"]["labels"]["app.kubernetes.io/component"]
        assert found == ([meant] if meant in labels else []), each["metadata"]["name"]


@every_rendering
def test_nothing_connects_to_a_pod_but_what_may(name: str) -> None:
    policies = {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"]
        for each in of_kind(name, "NetworkPolicy")
    }
    assert ROLES | {"migrate"} <= set(policies)
    for component, policy in policies.items():
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        for rule in policy["ingress"]:
            if component == "agent" and rule["ports"] == [{"port": "files"}]:
                (peer,) = rule["from"]
                assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "query"
                continue
            assert rule["ports"] == [{"port": "http"}]
            assert rule["from"], "no peer would mean everybody, outside of the cluster too"
        if component == "migrate":
            assert policy["ingress"] == []
        if name == "most":
            assert policy["egress"][0]["ports"][0]["port"] == 53
            assert {} not in policy["egress"]


def test_an_agent_runs_where_it_is_wanted_with_one_right_and_what_it_remembers_outlives_it(
    tmp_path: Path,
) -> None:
    from agent.settings import load_agent

    assert of_kind("least", "DaemonSet") == []
    (daemons,) = of_kind("most", "DaemonSet")
    template = daemons["spec"]["template"]
    pod, (container,) = template["spec"], template["spec"]["containers"]
    assert daemons["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["DAC_READ_SEARCH"]},
    }
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts) == set(volumes)
    assert volumes["state"]["hostPath"]["path"] == "/var/lib/logfeed-agent"
    shown = {name for name, volume in volumes.items() if "hostPath" in volume} - {"state"}
    assert {mounts[name]["mountPath"] for name in shown} == {"/var/log", "/srv/logs"}
    assert all(mounts[name]["readOnly"] for name in shown)

    file = tmp_path / "agent.yaml"
    file.write_text(config_of("most", "agent")["data"]["agent.yaml"])
    told = {"spec.nodeName": "node-1", "status.podIP": "10.1.2.3"}
    environment: dict[str, str] = {}
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        if "secretKeyRef" in source:
            environment[variable["name"]] = "lf_key"
        elif source:
            environment[variable["name"]] = told[source["fieldRef"]["fieldPath"]]
        else:
            environment[variable["name"]] = variable["value"].replace("$(POD_IP)", environment.get("POD_IP", ""))
    settings = load_agent(file, environment=environment).agent
    assert (settings.name, settings.address) == ("node-1", "http://10.1.2.3:8085")
    assert settings.state_dir == Path(mounts["state"]["mountPath"])
    assert {name: root.service for name, root in settings.roots.items()} == {"pods": "kubernetes", "shop": "shop"}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": settings.health_port, "files": settings.port}
    assert (settings.health_host, settings.host) == ("0.0.0.0", "0.0.0.0")
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "http"
    for role, url in (("query", settings.url), ("ingest", settings.ingest_url)):
        assert url == f"http://logfeed-{role}:8080"
        (policy,) = (each for each in of_kind("most", "NetworkPolicy") if each["metadata"]["name"] == f"logfeed-{role}")
        peers = [peer.get("podSelector", {}) for rule in policy["spec"]["ingress"] for peer in rule["from"]]
        assert any(peer.get("matchLabels", {}).get("app.kubernetes.io/component") == "agent" for peer in peers)


def test_two_pods_of_a_service_are_not_taken_away_at_once() -> None:
    for each in of_kind("least", "PodDisruptionBudget"):
        assert each["spec"]["maxUnavailable"] == 1
    assert len(of_kind("least", "PodDisruptionBudget")) == 2


def test_ingress_shows_the_api_and_the_page_and_keeps_the_rest_inside() -> None:
    assert of_kind("least", "Ingress") == []
    by_role = {each["metadata"]["labels"]["app.kubernetes.io/component"]: each for each in of_kind("most", "Ingress")}
    assert set(by_role) == {"ingest", "query"}
    hosts = set()
    for role, each in by_role.items():
        (rule,) = each["spec"]["rules"]
        hosts.add(rule["host"])
        shown = [(path["path"], path["pathType"]) for path in rule["http"]["paths"]]

        def leads(path: str, shown: list[tuple[str, str]] = shown) -> bool:
            return any(
                path == where or (kind == "Prefix" and path.startswith(where.rstrip("/") + "/"))
                for where, kind in shown
            )

        assert leads("/api/v1/logs")
        if role == "ingest":
            assert all(leads(path) for path in _sending_paths())
        assert not any(leads(path) for path in ("/metrics", "/livez", "/readyz"))
        assert all(leads(path) == (role == "query") for path in (*PATHS, "/docs", "/assets/index.js", "/favicon.svg"))
        assert {path["backend"]["service"]["name"] for path in rule["http"]["paths"]} == {f"logfeed-{role}"}
    assert len(hosts) == 2, "both have /api/v1/logs"


def _sending_paths() -> list[str]:
    """Of the API's document: what shippers post to. Elasticsearch's are below /elastic, too: at the root they are no prefix."""
    paths: Json = json.loads((ROOT / "schemas/openapi.json").read_text())["paths"]
    found = [path for path, verbs in paths.items() if "ingest" in verbs.get("post", {}).get("tags", [])]
    assert "/api/v1/logs/batch" in found
    return [path for path in found if f"/elastic{path}" not in found]


@every_rendering
def test_values_fit_their_schema(name: str) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(values_of(name))


@pytest.mark.parametrize(
    "change",
    [
        {"rolls": {}},
        {"roles": {"ingest": {"replicas": "two"}}},
        {"roles": {"serve": {"enabled": True}}},
        {"broker": {"bootstrap": "kafka"}},
        {"broker": {"saslPassword": "word"}},
        {"config": {"database": {"url": "postgresql://u:p@h/d"}}},
        {"canary": {"rate": 0}},
        {"agent": {"hostPaths": ["var/log"]}},
        {"agent": {"config": {"state_dir": "/tmp"}}},
        {"image": {"repository": ""}},
    ],
    ids=str,
)
def test_mistaken_values_are_refused(change: Json) -> None:
    assert list(jsonschema.Draft7Validator(SCHEMA).iter_errors(_merged(values_of("least"), change)))


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    own: Json = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(own) == set(SCHEMA["properties"]) - {"global"}
    for name, value in own.items():
        if isinstance(value, dict) and "properties" in SCHEMA["properties"][name] and name != "config":
            assert set(value) <= set(SCHEMA["properties"][name]["properties"])


def test_chart_is_of_this_version() -> None:
    chart: Json = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert chart["appVersion"] == version


def _sorted(found: Iterable[Json | None]) -> list[Json]:
    """Helm's versions write the same documents in other orders."""
    return sorted(filter(None, found), key=lambda each: (each["kind"], each["metadata"]["name"]))


@pytest.mark.long
def test_helm_makes_these_renderings_and_finds_nothing_wrong() -> None:
    helm = helm_program()
    for path, content in rendered(helm):
        assert _sorted(yaml.safe_load_all(content)) == _sorted(documents(path.stem)), "run `make helm`"
    for values in sorted(VALUES.glob("*.yaml")):
        done = subprocess.run(
            [str(helm), "lint", "--strict", str(CHART), "--values", str(values)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    command = [str(helm), "template", "logfeed", str(CHART), "--kube-version", KUBERNETES_VERSION]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "broker.bootstrap" in refused.stderr
