"""What goes out: signed, escaped, harmless. Real HTTP and SMTP servers."""

from __future__ import annotations

import asyncio
import email
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import Message as Mail
from email.policy import default
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from alerts.breaker import Held
from alerts.channels.email import EmailChannel
from alerts.channels.factory import Channels
from alerts.channels.port import Message
from alerts.channels.slack import TEXT_CHARS_MAX, escape
from alerts.channels.webhook import NOTIFICATION, SIGNATURE
from alerts.errors import DeliveryFailed
from alerts.evaluate import Sample
from alerts.messages import encode, message_of, text_of
from alerts.notify import Alert, Notification
from alerts.rules import RuleDocument
from alerts.settings import AlertSettings, EmailSettings
from broker.settings import BrokerSettings
from runtime.clock import ManualClock
from runtime.harmless import harmless
from schemas.errors import ConfigurationError
from tests.certificates import Certificate, make_certificate
from tests.webhook_server import WebhookServer

NOW_US = 1_767_225_600_000_000
RULE = RuleDocument.model_validate(
    {"name": "r", "query": "a b", "condition": {"count": {"at_least": 3}}, "group_by": ["service"]}
)
NASTY = "<!channel> <https://evil.example|click> @all `*` &\r\nBcc: x@evil.example\x1b[2J\u202e"


def message(text: str = "m", **fields: Any) -> Message:
    alert = Alert(
        alert_id="a" * 32,
        rule="r",
        labels={"rule": "r", "severity": "critical", "service": text},
        severity="critical",
        state="firing",
        started_us=NOW_US,
        ended_us=None,
        value=3.0,
        count=3,
        summary=text,
        runbook=None,
        samples=[Sample(NOW_US, 7, "ERROR", "shop", harmless(text))],
    )
    notification = Notification("n" * 32, "alerts", "r", "ops", "critical", NOW_US, 1, 0, [alert], **fields)
    document = message_of(notification, RULE, public_url="https://logs.example")
    return Message(notification.notification_id, document, encode(document))


def channels(clock: ManualClock | None = None, **one: Any) -> Channels:
    settings = AlertSettings.model_validate({"channels": {"ops": one}, "allowed_networks": ["127.0.0.0/8"]})
    return Channels(settings, BrokerSettings(), clock or ManualClock(NOW_US))


async def test_a_webhook_is_signed_with_the_time_and_each_attempt_has_the_same_id(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    clock = ManualClock(NOW_US)
    with WebhookServer() as server:
        out = channels(clock, type="webhook", url=server.url, secret_file=str(secret))
        sent = message()
        await out.by_name["ops"].send(sent)
        secret.write_text("second")
        clock.advance(60)
        await out.by_name["ops"].send(sent)
        await out.close()
    for request, key, unix_s in zip(
        server.requests, (b"first", b"second"), (1_767_225_600, 1_767_225_660), strict=True
    ):
        mac = hmac.new(key, b"%d." % unix_s + request.body, hashlib.sha256).hexdigest()
        assert request.headers[SIGNATURE] == f"t={unix_s},v1={mac}"
        assert request.headers[NOTIFICATION] == sent.notification_id
        assert request.body == sent.body
        assert request.headers["Content-Type"] == "application/json"
    document = orjson.loads(server.requests[0].body)
    assert document["alerts"][0]["url"].startswith("https://logs.example/?query=a+b&start_time=2025-12-31T23%3A55")
    assert document["title"] == "[critical] r: 1 firing (service=m)"


async def test_a_secret_that_is_gone_is_a_failure_that_does_not_show_it(tmp_path: Path) -> None:
    with WebhookServer() as server:
        out = channels(type="webhook", url=server.url, secret_file=str(tmp_path / "gone"))
        with pytest.raises(ConfigurationError, match="cannot be read"):
            await out.by_name["ops"].send(message())
        await out.close()
    assert not server.requests


async def test_slack_gets_text_that_mentions_nobody_and_links_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with WebhookServer() as server:
        monkeypatch.setenv("SLACK_URL", server.url)
        out = channels(type="slack", url_env="SLACK_URL")
        await out.by_name["ops"].send(message(NASTY * 5))
        await out.close()
    text = orjson.loads(server.requests[0].body)["text"]
    assert text.startswith("*[critical] r: 1 firing")
    assert len(text) <= TEXT_CHARS_MAX + 10
    for bad in ("<", ">", "@all", "\x1b", "\u202e", "\r"):
        assert bad not in text
    assert text.count("```") == 2
    assert escape("<!here> & `x`") == "&lt;!here&gt; &amp; 'x'"
    assert "](" not in escape("![x](https://evil.example/seen.png) [log in](https://evil.example)")


async def test_a_slack_address_that_is_wrong_or_answers_no_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with WebhookServer(status=403) as server:
        monkeypatch.setenv("SLACK_URL", f"{server.url}/T000/SECRET")
        out = channels(type="slack", url_env="SLACK_URL")
        with pytest.raises(DeliveryFailed, match="answered 403") as caught:
            await out.by_name["ops"].send(message())
        assert "SECRET" not in str(caught.value)
        await out.close()


def test_text_of_a_summary_says_what_was_held_back() -> None:
    text = text_of(message(held=Held(37, 40, NOW_US, NOW_US + 1, ["service=a"], 39)).document)
    assert "Held back: 37 messages about 40 alerts" in text
    assert "  and 39 alerts of other groups" in text
    assert "rule: at least 3 logs in 5m" in text


# --- mail -------------------------------------------------------------------------------------------------------------


class Inbox:
    """A mail server's handler."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.raw: list[bytes] = []
        self.recipients: list[str] = []
        self.is_encrypted: list[bool] = []
        self.refuses = False

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """The server's hook."""
        if self.refuses:
            return "451 try again later"
        self.raw.append(envelope.content)
        self.mails.append(email.message_from_bytes(envelope.content, policy=default))
        self.recipients += envelope.rcpt_tos
        self.is_encrypted.append(session.ssl is not None)
        return "250 taken"


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=isinstance(data, LoginPassword) and data.password == b"word")


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path, "localhost")


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@asynccontextmanager
async def mail_server(inbox: Inbox, *, tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[int]:
    """Its port. tls: from the start. options: of aiosmtpd."""

    def protocol() -> SMTP:
        return SMTP(inbox, hostname="localhost", authenticator=authenticate, **options)

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
async def smtp(inbox: Inbox, certificate: Certificate) -> AsyncIterator[int]:
    """STARTTLS and a login are needed."""
    options: dict[str, Any] = {
        "tls_context": certificate.server_context(),
        "require_starttls": True,
        "auth_required": True,
    }
    async with mail_server(inbox, **options) as port:
        yield port


def mail_channel(port: int, certificate: Certificate, password: Path, **fields: Any) -> EmailChannel:
    base = {
        "type": "email",
        "host": "localhost",
        "port": port,
        "ca_file": certificate.ca_file,
        "username": "logfeed",
        "password_file": password,
        "sender": "logfeed@example.org",
        "to": ("ops@example.org", "ann@example.org"),
    }
    return EmailChannel(EmailSettings.model_validate(base | fields), ManualClock(NOW_US), send_s=10)


async def test_mail_goes_encrypted_and_logged_in_and_headers_hold_no_more_than_they_should(
    smtp: int, inbox: Inbox, certificate: Certificate, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("word\n")
    channel = mail_channel(smtp, certificate, password)
    await channel.send(message(NASTY))
    (mail,) = inbox.mails
    assert inbox.recipients == ["ops@example.org", "ann@example.org"], "nobody was added by a log's text"
    assert inbox.is_encrypted == [True]
    assert mail["Message-ID"] == f"<{'n' * 32}@logfeed.example.org>"
    assert mail["Bcc"] is None
    assert "Bcc: x@evil" in mail["Subject"], "text, in one line"
    assert mail.get_content_type() == "text/plain"
    body = mail.get_content()  # type: ignore[attr-defined]  # of EmailMessage
    assert "\x1b" not in body
    assert "\\x1b[2J\\u202e" in body


async def test_a_wrong_password_a_refusal_and_a_wrong_name_are_failures_that_show_no_secret(
    smtp: int, inbox: Inbox, certificate: Certificate, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong-secret")
    with pytest.raises(DeliveryFailed) as caught:
        await mail_channel(smtp, certificate, password).send(message())
    assert "wrong-secret" not in str(caught.value)
    password.write_text("word")
    inbox.refuses = True
    with pytest.raises(DeliveryFailed, match="try again later"):
        await mail_channel(smtp, certificate, password).send(message())
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other", "localhost")
    with pytest.raises(DeliveryFailed):
        await mail_channel(smtp, other, password).send(message())
    assert not inbox.mails


async def test_mail_is_not_sent_in_the_clear_to_a_server_that_lost_its_encryption(
    inbox: Inbox, certificate: Certificate, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("word")
    async with mail_server(inbox, auth_require_tls=False) as port:
        with pytest.raises(DeliveryFailed):
            await mail_channel(port, certificate, password).send(message())
        await mail_channel(port, certificate, password, tls="none", username=None, password_file=None).send(message())
    assert len(inbox.mails) == 1


async def test_mail_by_tls_from_the_start(inbox: Inbox, certificate: Certificate, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("word")
    async with mail_server(inbox, tls=certificate.server_context(), auth_require_tls=False) as port:
        await mail_channel(port, certificate, password, tls="tls").send(message())
    assert len(inbox.mails) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"sender": "a@b\r\nBcc: c@d"},
        {"to": ["ops@example.org, evil@example.org"]},
        {"to": []},
        {"tls": "none"},
        {"password_file": None},
        {"password_env": "X"},
    ],
)
def test_mail_settings_that_would_leak_or_inject_are_refused(wrong: dict[str, Any], certificate: Certificate) -> None:
    with pytest.raises(ValueError):
        mail_channel(25, certificate, Path("/x"), **wrong)
