"""Secrets are masked or blocked, in the message and deep in the metadata; what only looks like one stays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.filters.content import Content
from ingest.filters.secrets import BUILT_IN, custom_rule
from ingest.filters.verdicts import PASS, Drop, Occasion, Pass
from schemas.record import Log

MASK = Content("c", rules=list(BUILT_IN.values()), action="mask")
BLOCK = Content("c", rules=list(BUILT_IN.values()), action="block")
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
GITHUB = "ghp_" + "a1B2" * 9
PRIVATE = "-----BEGIN RSA PRIVATE KEY-----\nMIIabc/+==\n-----END RSA PRIVATE KEY-----"


def masked(message: str = "m", metadata: dict[str, Any] | None = None) -> Log:
    log = Log(1, 1, 9, "shop", message, "kept@as.it.is", metadata or {})
    match MASK.judge(log, Occasion(0)):
        case Pass(log=None):
            return log
        case Pass(log=Log() as changed):
            assert BLOCK.judge(log, Occasion(0)) == Drop("c")
            assert MASK.judge(changed, Occasion(0)) is PASS, "masking is finished after one pass"
            return changed
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("paid with 4111111111111111 today", "paid with [masked:card] today"),
        ("paid with 4111 1111 1111 1111.", "paid with [masked:card]."),
        ("4111-1111-1111-1111", "[masked:card]"),
        ("order 12 4111 1111 1111 1111 ok", "order 12 [masked:card] ok"),
        ("378282246310005,5555555555554444", "[masked:card],[masked:card]"),
        ("30569309025904 6011111111111117 3530111333300000", "[masked:card] [masked:card] [masked:card]"),
        ("mail Bob.X+tag@mail.example.com!", "mail [masked:email]!"),
        ("Authorization: Bearer eyJhbGciOi.eyJzdWIi.sig-_", "Authorization: Bearer [masked:bearer]"),
        ("authorization: basic dXNlcjpwYXNz", "authorization: basic [masked:bearer]"),
        (f"key {AWS} leaked", "key [masked:aws_key] leaked"),
        (f"token {GITHUB} leaked", "token [masked:github_token] leaked"),
        (f"read {PRIVATE} end", "read [masked:private_key] end"),
        ("-----BEGIN PRIVATE KEY-----\nMIIcut off", "[masked:private_key]"),
        ("password=hunter2&next=1", "password=[masked:password]&next=1"),
        ("DB_PASSWORD: 'two words' end", "DB_PASSWORD: '[masked:password]' end"),
        ('{"api_key": "sk-1 2"}', '{"api_key": "[masked:password]"}'),
        ('{\\"client_secret\\":\\"x y\\"}', '{\\"client_secret\\":\\"[masked:password]\\"}'),
        ("пароль password=é€ конец", "пароль password=[masked:password] конец"),
    ],
    ids=lambda text: text[:30],
)
def test_secret_is_masked_in_the_message_and_in_metadata(message: str, expected: str) -> None:
    assert masked(message).message == expected
    assert masked(metadata={"a": [{"b": message}, 1]}).metadata == {"a": [{"b": expected}, 1]}


@pytest.mark.parametrize(
    "message",
    [
        "ts 1795341600123456789",
        "id 391824718239461376",
        "4111111111111112",
        "took 0.4111111111111111 s",
        "the password is long",
        "user@localhost",
        "basic functionality",
        "AKIA123",
        "ghp_short",
        "-----BEGIN CERTIFICATE-----",
        "",
    ],
)
def test_what_is_no_secret_stays(message: str) -> None:
    assert masked(message, {"x": message}) == Log(1, 1, 9, "shop", message, "kept@as.it.is", {"x": message})


def test_value_under_a_secret_name_is_masked_whatever_it_is() -> None:
    found = masked(metadata={"password": "x", "nested": {"API-Key": 17, "db_password": ""}, "token_count": 3})
    assert found.metadata == {
        "password": "[masked:password]",
        "nested": {"API-Key": "[masked:password]", "db_password": ""},
        "token_count": 3,
    }


def test_mask_does_not_tell_the_length() -> None:
    assert masked("password=a").message == masked("password=" + "b" * 500).message


def test_patterns_of_ones_own() -> None:
    rule = Content("c", rules=[custom_rule("badge", r"BADGE-\d{4}")], action="mask")
    verdict = rule.judge(Log(1, 1, 9, "shop", "é BADGE-1234 password=x", None, {}), Occasion(0))
    assert isinstance(verdict, Pass)
    assert verdict.log is not None
    assert verdict.log.message == "é [masked:badge] password=x"


@given(st.text(max_size=200))
def test_any_text_is_judged_without_error_and_once(text: str) -> None:
    masked(text, {text: [text]})


@given(st.text("0123456789 -", min_size=10, max_size=80))
def test_any_digits_are_judged_without_error_and_once(text: str) -> None:
    masked(text)


def test_hostile_text_takes_linear_time() -> None:
    masked("4" * 200_000)
    masked("1 " * 100_000)
    masked("a@" * 100_000)
    masked("password=" * 20_000)
