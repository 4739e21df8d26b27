"""Logging in through a provider: out with an attempt, back with a code, in with a session as after a password.

Who may what is decided when somebody logs in: the grants that their groups mean then are the user's in all sessions from that
moment on. Who has none is not let in, and loses those of before. Codes are good once, by the provider's word; each costs a
question to it, so that failures are slowed down by address as those of passwords are.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import structlog

from access.directory import Directory
from access.errors import LoginDenied, ProviderFaulty, ProviderUnavailable, Unauthenticated
from access.metrics import LOGINS
from access.oidc.addresses import is_local_path
from access.oidc.attempts import ATTEMPT_S, Attempt, new_attempt, read_attempt
from access.oidc.provider import ERROR_CODE, Provider
from access.oidc.rights import grants_of, name_of
from access.oidc.settings import OidcSettings
from access.oidc.users import remember_user
from access.sessions import Sessions, Tokens
from access.throttle import LoginThrottle
from db.database import Database
from runtime.clock import Clock
from schemas.errors import InvalidInput, LogfeedError, Overloaded

log = structlog.get_logger(__name__)

CALLBACK_PATH: Final = "/api/v1/auth/oidc/callback"
_AT_ONCE_MAX: Final = 32
_CODE_CHARS_MAX: Final = 4_096
_LATER: Final = frozenset({"temporarily_unavailable", "server_error"})
_DENIED: Final = frozenset(
    {
        "access_denied",
        "login_required",
        "interaction_required",
        "consent_required",
        "account_selection_required",
        "user_cancelled",
    }
)


class Leaving(NamedTuple):
    """A browser that goes to the provider."""

    address: str
    cookie: str
    cookie_s: int


class Answer(NamedTuple):
    """What the browser brings back in the query of the redirect URI."""

    state: str
    code: str
    error: str
    issuer: str | None


class Entered(NamedTuple):
    """Somebody who is let in."""

    tokens: Tokens
    address: str
    """Where their browser goes now."""


class OidcLogin:
    """The way in through one provider."""

    def __init__(
        self,
        settings: OidcSettings,
        *,
        public_url: str,
        database: Database,
        directory: Directory,
        sessions: Sessions,
        clock: Clock,
    ) -> None:
        """settings: checked by `is_offered`. public_url: an origin. Others are opened and closed by the caller."""
        self.settings = settings
        self.issuer: Final = settings.issuer or ""
        self._public_url = public_url
        self._provider = Provider(settings, clock, redirect_uri=public_url + CALLBACK_PATH)
        self._database = database
        self._directory = directory
        self._sessions = sessions
        self._clock = clock
        self._throttle = LoginThrottle()
        self._under_way = 0

    async def close(self) -> None:
        """Close connections to the provider."""
        await self._provider.close()

    async def begin(self, return_to: str) -> Leaving:
        """An attempt that ends at a path of this site. Raises InvalidInput, ProviderUnavailable, ProviderFaulty."""
        if not is_local_path(return_to):
            raise InvalidInput("return_to: expected a path of this site, such as /logs?query=level:error")
        secret = self._directory.token_secret
        attempt, cookie = new_attempt(secret, return_to, now_s=self._now_s())
        with self._place():
            return Leaving(await self._provider.login_address(attempt), cookie, ATTEMPT_S)

    async def finish(self, cookie: str, answer: Answer, *, address: str) -> Entered:
        """The session of whom the provider sent back. Raises Unauthenticated, LoginDenied, TooManyLogins, ProviderUnavailable,
        ProviderFaulty, DatabaseUnavailable, AccessUnknown."""
        try:
            with self._place():
                entered, name = await self._finish(cookie, answer, address)
        except LogfeedError as error:
            LOGINS.labels(outcome="refused").inc()
            log.warning("login through the provider refused", reason=str(error), address=address)
            raise
        LOGINS.labels(outcome="done").inc()
        log.info("login through the provider", user=name, address=address)
        return entered

    async def _finish(self, cookie: str, answer: Answer, address: str) -> tuple[Entered, str]:
        attempt = read_attempt(self._directory.token_secret, cookie, now_s=self._now_s())
        if attempt is None or not hmac.compare_digest(attempt.state.encode(), answer.state.encode("utf-8", "replace")):
            raise Unauthenticated(
                "this login was not begun in this browser, or too long ago: start again", error="invalid_token"
            )
        await self._provider.check_answer_issuer(answer.issuer)
        _check(answer)
        claims = await self._claims(answer.code, attempt, address)
        name, grants = name_of(claims, self.settings), grants_of(claims, self.settings)
        user_id = await remember_user(self._database, self.issuer, claims["sub"], name=name, grants=grants)
        if user_id is None or not grants:
            await self._directory.refresh()
            raise LoginDenied(
                "the login provider knows you, but none of your groups may anything here: ask who runs this"
            )
        session_s = min(self.settings.session_s, self._sessions.settings.session_s)
        tokens = await self._sessions.begin(user_id, session_s=session_s)
        return Entered(tokens, self._public_url + attempt.return_to), name

    async def _claims(self, code: str, attempt: Attempt, address: str) -> dict[str, Any]:
        """Slowed down where codes are tried that are none."""
        self._throttle.begin(attempt.number, address, now_s=self._clock.monotonic_s())
        try:
            claims = await self._provider.claims(code, attempt)
        except (ProviderUnavailable, ProviderFaulty):
            self._throttle.succeeded(attempt.number, address)  # for which nobody at this address can
            raise
        self._throttle.succeeded(attempt.number, address)
        return claims

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of a bounded number of attempts under way. Raises Overloaded."""
        if self._under_way >= _AT_ONCE_MAX:
            raise Overloaded("too many people are logging in at this moment: try again shortly", retry_after_s=2)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    def _now_s(self) -> int:
        return self._clock.now_us() // 1_000_000


def _check(answer: Answer) -> None:
    """That it brings a code. Raises LoginDenied, ProviderUnavailable, ProviderFaulty, Unauthenticated."""
    if answer.error in _DENIED:
        raise LoginDenied("you were not let in at the login provider, or turned back there")
    if answer.error in _LATER:
        raise ProviderUnavailable(retry_after_s=5)
    if answer.error:
        said = answer.error if ERROR_CODE.fullmatch(answer.error) else "an unknown error"
        raise ProviderFaulty(
            f"the login provider refuses this installation ({said}): check client_id, scopes, redirect URI"
        )
    if not 0 < len(answer.code) <= _CODE_CHARS_MAX:
        raise Unauthenticated("the login provider's answer has no code: start again", error="invalid_token")
