"""The agent's settings: its section of the file of all roles, and what servers may answer it."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from agent.heartbeat import read_answer as read_heartbeat
from agent.settings import load_agent, read_api_key
from agent.shipping.sending import Away, KeyUsed, Stored, TooLarge, read_answer
from schemas.errors import ConfigurationError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "logfeed.yml"
    path.write_text(text)
    return path


def test_other_roles_sections_are_left_alone(tmp_path: Path) -> None:
    file = written(
        tmp_path, "http: {port: 1}\nagent: {name: web-1, roots: {app: {path: /var/log/app, service: shop}}}\n"
    )
    environment = {"LOGFEED_HTTP__PORT": "2", "LOGFEED_AGENT__PORT": "9000"}
    settings = load_agent(file, environment=environment).agent
    assert (settings.name, settings.port) == ("web-1", 9000)
    assert settings.roots["app"].service == "shop"
    assert settings.shown_address(9000) == "http://127.0.0.1:9000"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("agent: {roots: {app: {path: logs, service: shop}}}", "agent.roots.app.path"),
        ("agent: {roots: {app: {path: /logs, service: 'a b'}}}", "agent.roots.app.service"),
        ("agent: {roots: {'(syslog)': {path: /logs, service: s}}}", "agent.roots"),
        ("agent: {roots: {app: {path: /logs, service: s, join_start: '('}}}", "agent.roots.app.join_start"),
        ("agent: {roots: {app: {path: /logs, service: s, join_start: a, join_continuation: b}}}", "agent.roots.app"),
        ("agent: {roots: {app: {path: /logs, service: s, zone: Mars/Base}}}", "agent.roots.app.zone"),
        ("agent: {name: 'a b'}", "agent.name"),
        ("agent: {url: 'ftp://x'}", "agent.url"),
        ("agent: {prot: 1}", "agent.prot"),
        ("agent: {host: 0.0.0.0}", "agent"),
        ("agent: {tls_cert: /a.pem}", "agent"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(ConfigurationError, match=f"\n  {where}"):
        load_agent(written(tmp_path, text), environment={})


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    key = tmp_path / "key"
    settings = load_agent(None, environment={"LOGFEED_AGENT__API_KEY_FILE": str(key)}).agent
    with pytest.raises(ConfigurationError):
        read_api_key(settings, {})
    key.write_text("lf_one\n")
    assert read_api_key(settings, {}) == "lf_one"
    assert read_api_key(load_agent(None, environment={}).agent, {"LOGFEED_API_KEY": "lf_two"}) == "lf_two"


@pytest.mark.parametrize(
    ("status", "document", "outcome"),
    [
        (201, {"accepted": 3, "filtered": {}}, Stored(3, 0, 0, {})),
        (
            201,
            {"accepted": 1, "filtered": {"quiet": 1}, "rejected": [{"index": 0, "code": "timestamp", "error": "old"}]},
            Stored(1, 1, 1, {"timestamp": "old"}),
        ),
        (200, {"accepted": 0, "filtered": {"quiet": 3}}, Stored(0, 3, 0, {})),
        (422, {"rejected": [{"code": "level", "error": "bad"}]}, Stored(0, 0, 3, {"level": "bad"})),
        (403, {"rejected": [{"code": "not_permitted", "error": "no"}]}, Stored(0, 0, 3, {"not_permitted": "no"})),
        (422, {"type": "urn:logfeed:problem:key-reused"}, KeyUsed()),
        (413, {"title": "large"}, TooLarge("HTTP 413: large")),
        (503, {"title": "busy", "detail": "later"}, Away("HTTP 503: busy later", 2.0)),
        (401, {"title": "who"}, Away("HTTP 401: who", 2.0, is_refusal=True)),
        (200, {"hello": 1}, Away("the answer is not that of a Logfeed server", is_refusal=True)),
    ],
)
def test_what_a_server_answers_to_a_batch(status: int, document: object, outcome: object) -> None:
    assert read_answer(status, orjson.dumps(document), logs=3, pause_s=2.0) == outcome


@pytest.mark.parametrize(
    ("status", "content", "pause_s", "is_heard"),
    [
        (200, b'{"heartbeat_s": 10}', 10.0, True),
        (200, b'{"heartbeat_s": 1000000}', 300.0, True),
        (200, b'{"heartbeat_s": 0}', 1.0, True),
        (200, b"<html>", 10.0, False),
        (403, b'{"title": "Not permitted"}', 10.0, False),
    ],
)
def test_what_a_server_answers_to_a_heartbeat(status: int, content: bytes, pause_s: float, is_heard: bool) -> None:
    found_s, reason = read_heartbeat(status, content)
    assert (found_s, reason is None) == (pause_s, is_heard)
