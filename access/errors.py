"""Why access is refused. Each edge owns its table from class to status."""

from __future__ import annotations

from schemas.errors import InvalidInput, LogfeedError, Overloaded


class Unauthenticated(LogfeedError):
    """Nothing says who you are: send `Authorization: Bearer` with an API key or an access token."""

    def __init__(self, message: str | None = None, *, error: str | None = None) -> None:
        """error: of RFC 6750 (invalid_token); None when no credentials came."""
        super().__init__(message)
        self.challenge = 'Bearer realm="logfeed"' + (f', error="{error}"' if error else "")
        """For the header WWW-Authenticate (RFC 9110, RFC 6750)."""


class Forbidden(LogfeedError):
    """You may not do this."""


class AccessUnknown(Overloaded):
    """Who may what cannot be told now: the database has not answered for too long."""


class TooManyLogins(Overloaded):
    """Too many attempts to log in: wait."""


class LoginDenied(Forbidden):
    """Who logs in is known, and stays out."""


class LoginNotOffered(LogfeedError):
    """Nobody logs in through a provider here: access.oidc.issuer is not set."""


class ProviderUnavailable(Overloaded):
    """The login provider does not answer: try again shortly."""


class ProviderFaulty(LogfeedError):
    """The login provider answers what it must not, or refuses this installation: whoever runs one of them must mend it."""


class AccountError(InvalidInput):
    """The key or user cannot be made or changed so."""


class AccountUnknown(AccountError):
    """There is no such key or user."""


class AccountConflict(AccountError):
    """The key or user cannot be so beside what there is."""


class WrongPassword(AccountError):
    """This is not the password."""
