"""Settings of logging in through an OpenID Connect provider."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from access.errors import AccountError
from access.grants import GRANTS_MAX, check_grants
from access.oidc.addresses import checked_address
from runtime.settings import Section
from schemas.errors import ConfigurationError


class OidcSettings(Section):
    """Whom to ask who somebody is, and what that means here. Nobody is asked without an issuer."""

    issuer: str | None = None
    """Address of the provider, exactly as it calls itself (a slash at its end counts); what is at
    /.well-known/openid-configuration below it says all else. https, or http on this machine alone."""

    client_id: str | None = Field(default=None, min_length=1, max_length=500)
    """What the provider calls this installation. Register there as its redirect URI
    http.public_url + /api/v1/auth/oidc/callback."""

    client_secret: SecretStr | None = None
    """What this installation proves itself with to the provider. Empty with an empty file: a public client, by PKCE alone."""

    client_secret_file: Path | None = None
    """A file that has it instead, and nothing else but a line end; read at each start."""

    scopes: str = "openid profile email"
    """What the provider is asked for, with spaces between (RFC 6749); openid must be among it."""

    name_claim: str = Field(default="preferred_username", min_length=1, max_length=200)
    """The claim of the ID token that says what somebody is called. It is shown; what counts is issuer and subject."""

    groups_claim: str = Field(default="groups", min_length=1, max_length=200)
    """The claim that `grants` goes by: a text or a list of them. A dotted name (realm_access.roles) also leads into claims."""

    grants: dict[str, tuple[str, ...]] = Field(default={}, max_length=1_000)
    """What each group (each value of `groups_claim`) may: {"payments": ["read:pay/*"]}. Who is in several may all of it."""

    default_grants: tuple[str, ...] = ()
    """What everybody may whom the provider lets in. Default none: who has no group that is named here stays out."""

    label: str = Field(default="Single sign-on", min_length=1, max_length=100)
    """What a button for this way in says."""

    session_s: int = Field(default=12 * 3_600, ge=600, le=366 * 86_400)
    """Seconds after which such a session ends although it is refreshed (at most access.session_s). A right that was taken away
    at the provider lasts no longer than this here, since groups are looked at when somebody logs in. Default 12 h: a working
    day."""

    @field_validator("issuer")
    @classmethod
    def _is_address(cls, issuer: str | None) -> str | None:
        if issuer is not None and checked_address(issuer).query:
            raise ValueError("expected an address without a query")
        return issuer

    @field_validator("scopes")
    @classmethod
    def _asks_for_an_id_token(cls, scopes: str) -> str:
        if "openid" not in scopes.split(" ") or not scopes.isascii() or not scopes.isprintable():
            raise ValueError("expected scopes with spaces between, openid among them")
        return scopes

    @field_validator("grants", "default_grants")
    @classmethod
    def _are_grants(
        cls, value: dict[str, tuple[str, ...]] | tuple[str, ...]
    ) -> dict[str, tuple[str, ...]] | tuple[str, ...]:
        try:
            if isinstance(value, tuple):
                return tuple(check_grants(value)) if value else ()
            if value:
                check_grants(chain.from_iterable(value.values()))  # together: somebody may be in all groups
            return {group: tuple(check_grants(grants)) for group, grants in value.items()}
        except AccountError as error:
            raise ValueError(str(error)) from error


def is_offered(settings: OidcSettings, public_url: str | None) -> bool:
    """Whether people can log in through a provider. Raises ConfigurationError for settings that cannot work together."""
    if settings.issuer is None:
        return False
    if settings.client_id is None:
        raise ConfigurationError("access.oidc.issuer is set, so access.oidc.client_id must be")
    if public_url is None:
        raise ConfigurationError(
            "access.oidc.issuer is set, so http.public_url must be: the provider sends browsers back to it"
        )
    if not settings.grants and not settings.default_grants:
        raise ConfigurationError(
            "access.oidc.issuer is set, but nobody who comes from there may anything: set access.oidc.grants"
        )
    if len({*chain.from_iterable(settings.grants.values()), *settings.default_grants}) > GRANTS_MAX:
        raise ConfigurationError(
            f"access.oidc.grants and default_grants: expected at most {GRANTS_MAX} together: use prefixes"
        )
    if settings.client_secret is not None and settings.client_secret_file is not None:
        raise ConfigurationError("set access.oidc.client_secret or access.oidc.client_secret_file, not both")
    client_secret(settings)
    return True


def client_secret(settings: OidcSettings) -> str | None:
    """The secret in force, None for a public client. Raises ConfigurationError when its file cannot be read."""
    if settings.client_secret is not None:
        return settings.client_secret.get_secret_value()
    if settings.client_secret_file is None:
        return None
    try:
        found = settings.client_secret_file.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"access.oidc.client_secret_file: {settings.client_secret_file} cannot be read: {error}"
        ) from error
    if not found:
        raise ConfigurationError(f"access.oidc.client_secret_file: {settings.client_secret_file} is empty")
    return found
