"""Settings of alerting."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from alerts.durations import Duration
from alerts.matching import MATCHERS_MAX, parse_matcher
from runtime.outgoing import check_url
from runtime.settings import Section
from schemas.errors import ConfigurationError

CHANNELS_MAX: Final = 50
SECRET_BYTES_MAX: Final = 16 * 1024
_CHANNEL_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
MatcherText = Annotated[str, Field(max_length=700)]


class _Secretive(Section):
    @staticmethod
    def _one_of(file: Path | None, variable: str | None, what: str, *, is_needed: bool = True) -> None:
        if file is not None and variable is not None:
            raise ValueError(f"expected {what}_file or {what}_env, got both")
        if is_needed and file is None and variable is None:
            raise ValueError(f"expected {what}_file (a file that holds it) or {what}_env (a variable's name)")


class WebhookSettings(_Secretive):
    """JSON by POST, signed."""

    type: Literal["webhook"]
    url: str = Field(max_length=2_000)
    """http or https address. No redirect is followed."""
    secret_file: Path | None = None
    """File with the secret that signs messages."""
    secret_env: str | None = None
    """Variable with it, instead of a file. One of both is needed."""

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        return check_url(url)

    @model_validator(mode="after")
    def _has_secret(self) -> Self:
        self._one_of(self.secret_file, self.secret_env, "secret")
        return self


class SlackSettings(_Secretive):
    """A Slack-compatible incoming webhook (Slack, Mattermost, Rocket.Chat)."""

    type: Literal["slack"]
    url_file: Path | None = None
    """File with the address, which is the secret."""
    url_env: str | None = None
    """Variable with it, instead of a file. One of both is needed."""

    @model_validator(mode="after")
    def _has_url(self) -> Self:
        self._one_of(self.url_file, self.url_env, "url")
        return self


class EmailSettings(_Secretive):
    """E-mail by SMTP."""

    type: Literal["email"]
    host: str = Field(min_length=1, max_length=253)
    """SMTP server."""
    port: int = Field(default=587, ge=1, le=65_535)
    """Its port. Default 587, submission with STARTTLS."""
    tls: Literal["starttls", "tls", "none"] = "starttls"
    """starttls: plain first, then encrypted, or not at all; tls: encrypted from the start (465); none: for a server on this
    machine."""
    ca_file: Path | None = None
    """PEM file with the authorities that its certificate is checked against. Default: the system's."""
    username: str | None = Field(default=None, max_length=320)
    """For logging in; none: no login."""
    password_file: Path | None = None
    """File with the password."""
    password_env: str | None = None
    """Variable with it, instead of a file."""
    sender: str = Field(min_length=3, max_length=320)
    """Address in From."""
    to: tuple[str, ...] = Field(min_length=1, max_length=50)
    """Who gets it."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._one_of(self.password_file, self.password_env, "password", is_needed=self.username is not None)
        for address in (self.sender, *self.to):
            if "@" not in address or not address.isprintable() or any(letter in address for letter in ' ,;<>"()'):
                raise ValueError(f"{address!r:.100} is no mail address")
        if self.tls == "none" and self.username is not None:
            raise ValueError("a password is not sent without encryption: set tls to starttls or tls")
        return self


class TopicSettings(Section):
    """Records of a Kafka topic, one JSON message each; in the embedded profile they are stored and served by the API alone."""

    type: Literal["topic"]
    topic: str = Field(default="alerts", pattern=r"^[a-zA-Z0-9._-]{1,249}$")
    """Its name. Default alerts."""


ChannelSettings = Annotated[
    WebhookSettings | SlackSettings | EmailSettings | TopicSettings, Field(discriminator="type")
]


class InhibitionSettings(Section):
    """While `source` fires, `target` is not told."""

    source: tuple[MatcherText, ...] = Field(min_length=1, max_length=MATCHERS_MAX)
    """Matchers of what fires: severity=critical."""
    target: tuple[MatcherText, ...] = Field(min_length=1, max_length=MATCHERS_MAX)
    """Matchers of what is not told then."""
    equal: tuple[str, ...] = Field(default=(), max_length=20)
    """Labels that must have the same value in both."""

    @field_validator("source", "target")
    @classmethod
    def _are_matchers(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            parse_matcher(text)
        return texts


class AlertSettings(Section):
    """Rules over logs, and where they are told."""

    rules: Path | None = None
    """YAML file with rules, or a directory of them; docs/alerts.md. Read again when it changes."""

    channels: dict[Annotated[str, Field(pattern=_CHANNEL_NAME)], ChannelSettings] = Field(
        default={}, max_length=CHANNELS_MAX
    )
    """Name -> where messages go: type webhook, slack, email or topic, and what that needs."""

    default_channels: tuple[str, ...] = ()
    """Channels of rules that name none."""

    allowed_networks: tuple[str, ...] = ()
    """Networks that webhooks may reach although they are not public (10.1.0.0/16). Default none: only addresses of the
    Internet."""

    inhibitions: tuple[InhibitionSettings, ...] = Field(default=(), max_length=100)
    """Alerts that are not told while others fire."""

    group_wait: Duration = Field(default=10, ge=0, le=3_600)
    """How long the first alert of a rule waits for others before it is told. Default 10s."""

    group_interval: Duration = Field(default=300, ge=1, le=86_400)
    """Time between two messages of one rule to one channel at least. Default 5m."""

    repeat_interval: Duration = Field(default=14_400, ge=60, le=30 * 86_400)
    """How often what goes on firing is told again. Default 4h."""

    breaker_notifications_max: int = Field(default=10, ge=1, le=1_000)
    """Messages of one rule to one channel within `breaker_window`, past which the breaker opens. Default 10."""

    breaker_window: Duration = Field(default=3_600, ge=1, le=7 * 86_400)
    """See breaker_notifications_max. Default 1h."""

    breaker_cool_down: Duration = Field(default=3_600, ge=1, le=7 * 86_400)
    """How long an open breaker holds messages back before it sums them up; not shorter than the window. Default 1h."""

    attempts_max: int = Field(default=15, ge=1, le=100)
    """Attempts to send a message before it is given up. Default 15: some two and a half hours."""

    backoff_max: Duration = Field(default=1_800, ge=1, le=86_400)
    """Longest pause between two attempts. Default 30m; the first is a second, then twice as long each time."""

    send_s: float = Field(default=10.0, gt=0, le=300)
    """Seconds that one attempt may take as a whole. Default 10."""

    stall_s: float = Field(default=60.0, gt=0, le=86_400)
    """Seconds after which a partition without a leader is not waited for any more: looks go on, its logs may come late."""

    save_s: float = Field(default=5.0, gt=0, le=60)
    """Seconds between two savings of what was read while nothing is decided. Default 5: a new leader reads so much again."""

    name: str = Field(default_factory=socket.gethostname, min_length=1, max_length=200)
    """Stable name of this process: a restart under it leads again at once. Default: the host's name."""

    health_host: str = "127.0.0.1"
    """Address of health and metrics of `logfeed alert`."""

    health_port: int = Field(default=0, ge=0, le=65_535)
    """Its port; 0 (default) listens nowhere."""

    @field_validator("allowed_networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ipaddress.ip_network(network)
        return networks

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if unknown := sorted(set(self.default_channels) - set(self.channels)):
            raise ValueError(f"default_channels: there is no channel {unknown[0]!r} in channels")
        if self.breaker_cool_down < self.breaker_window:
            raise ValueError("breaker_cool_down must not be shorter than breaker_window: a storm would pass in pieces")
        return self


def read_secret(file: Path | None, variable: str | None) -> str:
    """A secret, as it is now. Raises ConfigurationError, which does not show it."""
    if file is not None:
        try:
            with file.open("rb") as opened:
                text = opened.read(SECRET_BYTES_MAX + 1).decode().strip()
        except OSError as error:
            raise ConfigurationError(f"secret file {file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"secret file {file} is no UTF-8 text") from error
        source = str(file)
    else:
        text, source = os.environ.get(variable or "", "").strip(), f"variable {variable}"
    if not text or len(text) > SECRET_BYTES_MAX:
        raise ConfigurationError(f"{source} holds no secret: expected 1..{SECRET_BYTES_MAX} characters")
    return text
