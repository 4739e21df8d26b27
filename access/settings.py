"""Settings of access control."""

from __future__ import annotations

from pydantic import Field

from access.oidc.settings import OidcSettings
from runtime.settings import Section


class AccessSettings(Section):
    """Who may what."""

    enabled: bool = True
    """false lets everyone read and write everything. Only where the HTTP application listens on loopback."""

    offline_s: int = Field(default=3_300, ge=0, le=86_400)
    """Seconds for which keys and users go on being known while the database is away, after it last confirmed them. To revoke
    takes that database; a process that is cut off from it learns of it no later than this. Default: as long as ids last."""

    access_token_s: int = Field(default=600, ge=60, le=3_600)
    """Seconds for which an access token is good. Sessions that end take theirs with them within seconds, whatever this is."""

    session_s: int = Field(default=30 * 86_400, ge=3_600, le=366 * 86_400)
    """Seconds after which a session ends although it is refreshed."""

    session_idle_s: int = Field(default=7 * 86_400, ge=600, le=366 * 86_400)
    """Seconds without a refresh after which a session ends."""

    passwords_at_once: int = Field(default=2, ge=1, le=64)
    """Passwords that are checked at the same time, each with 64 MiB of memory and about 0.2 s of a core."""

    cookie_secure: bool = True
    """The refresh token's cookie is sent over TLS only. Browsers take loopback for secure."""

    oidc: OidcSettings = OidcSettings()
    """Logging in through an OpenID Connect provider."""

    audit: bool = True
    """Whoever looks at logs is written down as logs of the service logfeed/audit."""
