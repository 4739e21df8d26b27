"""What of logging in through a provider is decided without one: addresses, attempts, keys, names, settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey
from pydantic import SecretStr, ValidationError

from access.oidc.addresses import checked_address, checked_origin, is_local_path
from access.oidc.attempts import ATTEMPT_S, new_attempt, read_attempt
from access.oidc.id_tokens import public_keys
from access.oidc.rights import name_of
from access.oidc.settings import OidcSettings, client_secret, is_offered
from access.tokens import Claims, new_access_token, read_access_token
from schemas.errors import ConfigurationError

SECRET = bytes(range(32))
NOW_S = 1_800_000_000


@pytest.mark.parametrize(
    ("url", "is_good"),
    [
        ("https://login.example.org/realms/one", True),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]/", True),
        ("http://localhost:9", True),
        ("http://login.example.org", False),
        ("http://127.0.0.1.example.org", False),
        ("http://localhost.example.org", False),
        ("http://10.0.0.1", False),
        ("http://user@127.0.0.1", False),
        ("https://127.0.0.1@evil.example", False),
        ("https://evil.example\\@login.example.org", False),
        ("https://login.example.org/#a", False),
        ("https://login.example.org:port", False),
        ("https://", False),
        ("https:/login.example.org", False),
        ("ftp://login.example.org", False),
        ("file:///etc/passwd", False),
        ("javascript:alert(1)", False),
        ("https://login.example.org/a b", False),
        ("https://login.example.org/\n", False),
        ("https://lögin.example.org", False),
    ],
)
def test_only_https_and_this_machine_are_spoken_to(url: str, is_good: bool) -> None:
    if is_good:
        assert checked_address(url).hostname
    else:
        with pytest.raises(ValueError):
            checked_address(url)


def test_a_provider_elsewhere_leads_nobody_to_this_machine() -> None:
    with pytest.raises(ValueError, match="https"):
        checked_address("http://127.0.0.1/token", loopback=False)


def test_an_origin_has_no_path() -> None:
    assert checked_origin("https://logs.example.org/") == "https://logs.example.org"
    assert checked_origin("http://127.0.0.1:8080") == "http://127.0.0.1:8080"
    for url in ("https://logs.example.org/logs", "https://logs.example.org?a=b", "http://logs.example.org"):
        with pytest.raises(ValueError):
            checked_origin(url)


def test_a_return_path_is_of_this_site() -> None:
    assert is_local_path("/")
    assert is_local_path("/logs?query=level:error%20x&limit=1#here")
    for path in ("", "logs", "//x", "/\\x", "/\tx", "/\x7f", "/ä", "https://x", "/" + "a" * 1_000):
        assert not is_local_path(path), path


def test_an_attempt_is_read_by_who_has_the_secret_and_until_its_end() -> None:
    attempt, cookie = new_attempt(SECRET, "/logs", now_s=NOW_S)
    assert read_attempt(SECRET, cookie, now_s=NOW_S + ATTEMPT_S - 1) == attempt
    assert read_attempt(SECRET, cookie, now_s=NOW_S + ATTEMPT_S) is None
    assert read_attempt(bytes(32), cookie, now_s=NOW_S) is None
    assert len({attempt.number, attempt.state, attempt.nonce, attempt.verifier, attempt.challenge}) == 5
    assert len(attempt.verifier) == 43
    other, _ = new_attempt(SECRET, "/logs", now_s=NOW_S)
    assert not {attempt.state, attempt.nonce, attempt.verifier} & {other.state, other.nonce, other.verifier}


def test_an_attempt_and_an_access_token_are_never_taken_for_each_other() -> None:
    _, cookie = new_attempt(SECRET, "/", now_s=NOW_S)
    token = new_access_token(Claims(1, "session"), SECRET, now_s=NOW_S, lives_s=600)
    assert read_access_token(cookie, SECRET, now_s=NOW_S) is None
    assert read_attempt(SECRET, token, now_s=NOW_S) is None


def test_only_public_keys_for_signatures_are_taken_from_a_set() -> None:
    good: list[RSAKey | ECKey] = [RSAKey.generate_key(2048, {"kid": "a"}), ECKey.generate_key("P-256", {"kid": "b"})]
    bad: list[Any] = [
        OctKey.generate_key(256).as_dict(private=True),
        RSAKey.generate_key(2048, {"use": "enc"}).as_dict(private=False),
        RSAKey.generate_key(1024).as_dict(private=False),
        {"kty": "RSA", "n": "?", "e": "AQAB"},
        {"kty": ["RSA"]},
        {},
        None,
        "RSA",
    ]
    found = public_keys([*bad, *(key.as_dict(private=False) for key in good)])
    assert [key.kid for key in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        ("Ann", "ann"),
        ("ann@example.org", "ann@example.org"),
        ("Ann Müller ", "ann-muller"),
        ("-.@ann", "ann"),
        ("李", "user"),
        ("", "u-1"),
        (7, "u-1"),
        ("a" * 200, "a" * 80),
        ("x\0\n' OR 1=1", "x-or-1-1"),
    ],
)
def test_names_are_made_of_what_names_are_made_of(claim: Any, name: str) -> None:
    assert name_of({"sub": "U/1", "preferred_username": claim}, OidcSettings()) == name


@pytest.mark.parametrize(
    "settings",
    [
        {"issuer": "http://login.example.org"},
        {"issuer": "https://login.example.org?a=b"},
        {"scopes": "profile email"},
        {"grants": {"a": ["read"]}},
        {"grants": {"a": []}},
        {"grants": {"a": ["write:logfeed/audit"]}},
        {"default_grants": ["everything"]},
        {"session_s": 1},
        {"issuers": "https://login.example.org"},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OidcSettings.model_validate(settings)


def test_a_provider_is_asked_only_with_all_that_it_takes(tmp_path: Path) -> None:
    whole = OidcSettings(issuer="https://login.example.org", client_id="logfeed", default_grants=("read:*",))
    assert not is_offered(OidcSettings(), None)
    assert is_offered(whole, "https://logs.example.org")
    with pytest.raises(ConfigurationError, match="public_url"):
        is_offered(whole, None)
    file = tmp_path / "secret"
    named = whole.model_copy(update={"client_secret_file": file})
    with pytest.raises(ConfigurationError, match="cannot be read"):
        is_offered(named, "https://logs.example.org")
    file.write_text("word\n")
    assert client_secret(named) == "word"
    with pytest.raises(ConfigurationError, match="not both"):
        is_offered(named.model_copy(update={"client_secret": SecretStr("word")}), "https://logs.example.org")
