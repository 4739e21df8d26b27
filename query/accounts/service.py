"""Keys and users for whoever administers all services: what may be changed by whom (INV-5).

`access/accounts.py` changes them, as for the commands. Here is what holds for people who are not at the server: nobody takes
the last admin away, or their own key or right by accident; and a right over the audit log, which is in nobody's `*`, is given,
or taken over with a password, by those alone who have it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
import structlog

from access.accounts import Accounts, KeyInfo, UserInfo
from access.errors import AccountConflict, AccountError, Forbidden, WrongPassword
from access.grants import ADMIN_OF_ALL, services_of
from access.principal import Principal, RateLimits
from access.sessions import Sessions
from access.user_sessions import UserSessions
from query.accounts.parameters import AccountQuestion, grants_of
from query.listing import ListPlace, ListSeal, Secret
from query.patterns import Place
from runtime.clock import Clock
from schemas.accounts import NewKey, NewPassword, NewUser, Rate, UserChange
from schemas.errors import DatabaseUnavailable
from schemas.scope import RESERVED_SERVICES
from schemas.times import time_text
from search.params import ParameterError
from store.page_sql import to_us

log = structlog.get_logger(__name__)

_EXPIRES_DAYS_MAX: Final = 36_525
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of a request, for its answer and for the audit log."""

    body: bytes
    """JSON; empty where nothing is to be shown."""
    what: str
    """Behind who did it: `made the key 3kzj6qvw2xah (shop)`."""
    target: str
    """key:PREFIX, user:NUMBER."""
    grants: list[str] | None
    """What the target may then; None: that is not what was changed."""


class AccountAnswers:
    """The keys and users of one installation, for principals."""

    def __init__(
        self,
        accounts: Accounts,
        logins: UserSessions,
        sessions: Sessions,
        *,
        place: Place,
        secret: Secret,
        clock: Clock,
    ) -> None:
        """logins: sessions, shown and ended. sessions: who logs in. place: of a question. secret: of cursors; raises Overloaded
        while it cannot be had."""
        self._accounts = accounts
        self._logins = logins
        self._sessions = sessions
        self._place = place
        self._secret = secret
        self._clock = clock

    # --- keys ---

    async def keys(self, question: AccountQuestion, principal: Principal) -> bytes:
        """KeyList. Raises Forbidden, CursorError, Overloaded."""
        check_admin(principal)
        seal = ListSeal(await self._secret(), of="keys")
        after = None
        if question.token is not None:
            place = seal.open(question.token, subject=principal.subject, question=question.canonical)
            after = (_EPOCH + timedelta(microseconds=place.at_us), place.id)
        async with self._place(principal):
            found = await self._accounts.key_page(
                part=question.part, everything=question.everything, after=after, limit=question.limit + 1
            )
        shown, following = found[: question.limit], None
        if len(found) > question.limit:
            place = ListPlace(to_us(shown[-1].created_at), shown[-1].prefix)
            following = seal.seal(place, subject=principal.subject, question=question.canonical)
        now = self._now()
        return orjson.dumps({"keys": [_key_json(key, now) for key in shown], "next_cursor": following})

    async def make_key(self, wanted: NewKey, principal: Principal) -> Changed:
        """MadeKey. Raises Forbidden, AccountError, Overloaded."""
        check_admin(principal)
        grants = grants_of(wanted.permissions)
        _check_gives(principal, grants)
        now = self._now()
        if wanted.expires_at is not None and not now < wanted.expires_at < now + timedelta(days=_EXPIRES_DAYS_MAX):
            raise ParameterError("expires_at", "expected a time to come, within a hundred years")
        rates = RateLimits(_rate(wanted.logs_per_s), _rate(wanted.bytes_per_s), wanted.burst_s)
        async with self._place(principal):
            made = await self._accounts.create_key(
                wanted.name,
                grants,
                created_by=f"{principal.name} ({principal.subject})",
                expires_at=wanted.expires_at,
                networks=wanted.networks,
                rates=rates,
            )
            key = await self._accounts.key(made.prefix)
        body = orjson.dumps({**_key_json(key, now), "key": made.text})
        return await self._changed(
            principal, body, f"made the key {key.prefix} ({key.name})", f"key:{key.prefix}", grants
        )

    async def revoke_key(self, prefix: str, principal: Principal) -> Changed:
        """Nothing to show. Raises Forbidden, AccountUnknown, AccountConflict, Overloaded."""
        check_admin(principal)
        if principal.subject == f"key:{prefix}":
            raise AccountConflict("this is the key that you are asking with: revoke it with another one, or as a user")
        async with self._place(principal):
            key = await self._accounts.revoke_key(prefix, keeps_admin=True)
        return await self._changed(principal, b"", f"revoked the key {prefix} ({key.name})", f"key:{prefix}", [])

    # --- users ---

    async def users(self, question: AccountQuestion, principal: Principal) -> bytes:
        """UserList. Raises Forbidden, CursorError, Overloaded."""
        check_admin(principal)
        seal = ListSeal(await self._secret(), of="users")
        after = ""
        if question.token is not None:
            after = seal.open(question.token, subject=principal.subject, question=question.canonical).id
        async with self._place(principal):
            found = await self._accounts.user_page(part=question.part, after=after, limit=question.limit + 1)
        shown, following = found[: question.limit], None
        if len(found) > question.limit:
            following = seal.seal(ListPlace(0, shown[-1].name), subject=principal.subject, question=question.canonical)
        return orjson.dumps({"users": list(map(_user_json, shown)), "next_cursor": following})

    async def make_user(self, wanted: NewUser, principal: Principal) -> Changed:
        """UserModel. Raises Forbidden, AccountError, Overloaded."""
        check_admin(principal)
        grants = grants_of(wanted.permissions)
        _check_gives(principal, grants)
        password_hash = await self._hash(wanted.password)
        async with self._place(principal):
            await self._accounts.create_user(wanted.name, grants, password_hash=password_hash)
            user = await self._accounts.user(wanted.name)
        return await self._changed(principal, _user_body(user), f"made the user {user.name}", _subject(user), grants)

    async def change_user(self, name: str, wanted: UserChange, principal: Principal) -> Changed:
        """UserModel. Raises Forbidden, AccountError, Overloaded."""
        check_admin(principal)
        grants = None if wanted.permissions is None else grants_of(wanted.permissions)
        if grants is None and wanted.disabled is None:
            raise ParameterError("body", "expected permissions, disabled, or both")
        if _is_own(principal, name):
            _check_stays(wanted, grants)
        async with self._place(principal):
            user = await self._accounts.change_user(
                name,
                grants=grants,
                is_disabled=wanted.disabled,
                keeps_admin=True,
                check=lambda before: _check_gives(principal, set(grants or ()) - set(before.grants)),
            )
        done = [] if grants is None else ["changed what they may"]
        done += [] if wanted.disabled is None else ["disabled them" if wanted.disabled else "let them in again"]
        what = f"changed the user {name}: {', '.join(done)}"
        return await self._changed(principal, _user_body(user), what, _subject(user), user.grants)

    async def sessions_of(self, name: str, principal: Principal) -> bytes:
        """SessionList: one's own, or with `admin` on all services anybody's. Raises Forbidden, AccountUnknown, Overloaded."""
        self.check_is_own(name, principal)
        async with self._place(principal):
            _, found = await self._logins.of(name, idle_s=self._sessions.settings.session_idle_s)
        shown = [
            {
                "began_at": _time(each.began_at),
                "refreshed_at": _time(each.refreshed_at),
                "ends_at": _time(each.ends_at),
            }
            for each in found
        ]
        return orjson.dumps({"sessions": shown})

    async def end_sessions(self, name: str, principal: Principal) -> Changed:
        """Nothing to show; whose as in `sessions_of`. Raises Forbidden, AccountUnknown, Overloaded."""
        self.check_is_own(name, principal)
        async with self._place(principal):
            user = await self._logins.end(name)
        what = "signed out everywhere" if _is_own(principal, name) else f"ended all sessions of the user {name}"
        return await self._changed(principal, b"", what, _subject(user), None)

    def check_is_own(self, name: str, principal: Principal) -> None:
        """Or may administer. Raises Forbidden."""
        if not _is_own(principal, name):
            check_admin(principal)

    async def set_password(self, name: str, wanted: NewPassword, principal: Principal, *, address: str) -> Changed:
        """Nothing to show. One's own takes the one that there is; another's, `admin` on all services. Raises Forbidden,
        AccountError, TooManyLogins, Overloaded."""
        is_own, stored = _is_own(principal, name), None
        self.check_is_own(name, principal)
        if is_own and wanted.current_password is None:
            raise ParameterError("current_password", "is needed where the user is yourself")

        def check(before: UserInfo) -> None:
            if before.issuer is not None:
                raise AccountConflict(f"{name} has no password here: they come from {before.issuer}")
            if not is_own:
                _check_gives(principal, before.grants)

        async with self._place(principal):
            check(await self._accounts.user(name))  # before anything is hashed; and again with the change
        password_hash = await self._hash(wanted.password)
        if is_own and wanted.current_password is not None:
            try:
                stored = await self._sessions.check_password(name, wanted.current_password, address=address)
            except WrongPassword as error:
                log.warning("a wrong password was given to change it", user=name, address=address)
                raise ParameterError("current_password", "this is not your password") from error
        async with self._place(principal):
            user = await self._accounts.set_password(name, password_hash, instead_of=stored, check=check)
        what = "changed their own password" if is_own else f"set another password of the user {name}"
        return await self._changed(principal, b"", what, _subject(user), user.grants)

    async def _hash(self, password: str) -> str:
        try:
            return await self._sessions.passwords.hash(password)
        except AccountError as error:
            raise ParameterError("password", str(error)) from error

    async def _changed(
        self, principal: Principal, body: bytes, what: str, target: str, grants: list[str] | None
    ) -> Changed:
        log.info("who may what was changed", by=principal.subject, what=what, target=target)
        try:
            await self._sessions.know_changes()
        except DatabaseUnavailable as error:  # it is done, and a key that was made must be told
            log.warning("a change acts here when the database answers again", error=str(error))
        return Changed(body, what, target, grants)

    def _now(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self._clock.now_us())


def check_admin(principal: Principal) -> None:
    """Raises Forbidden."""
    if not principal.may_admin.everything:
        raise Forbidden("you lack the permission admin on all services")


def _check_gives(principal: Principal, grants: Iterable[str]) -> None:
    """Raises Forbidden for what is not in `*`, so that whoever administers may not have it."""
    for permission, services in services_of(grants).items():
        for name in RESERVED_SERVICES.intersection(services):
            if not principal.may_admin.permits(name):
                raise Forbidden(f"you lack the permission admin on {name}: {permission} on it is given by who has that")


def _check_stays(wanted: UserChange, grants: list[str] | None) -> None:
    if wanted.disabled:
        raise AccountConflict("this is yourself: another who has `admin` on all services can disable you")
    if grants is not None and ADMIN_OF_ALL not in grants:
        raise AccountConflict("this is yourself: another who has `admin` on all services can take it from you")


def _is_own(principal: Principal, name: str) -> bool:
    """Users keep their names, and no two have one; keys may be called anything."""
    return principal.subject.startswith("user:") and principal.name == name


def _subject(user: UserInfo) -> str:
    return f"user:{user.user_id}"


def _rate(rate: Rate) -> float | None:
    return math.inf if rate == "none" else rate


def _rate_json(rate: float | None) -> float | str | None:
    """JSON has no infinity."""
    return "none" if rate is not None and math.isinf(rate) else rate


def _key_json(key: KeyInfo, now: datetime) -> dict[str, Any]:
    return {
        "prefix": key.prefix,
        "name": key.name,
        "state": key.state(now),
        "permissions": services_of(key.grants),
        "networks": key.networks,
        "created_at": _time(key.created_at),
        "created_by": key.created_by,
        "expires_at": _time(key.expires_at),
        "revoked_at": _time(key.revoked_at),
        "last_used_at": _time(key.last_used_at),
        "logs_per_s": _rate_json(key.logs_per_s),
        "bytes_per_s": _rate_json(key.bytes_per_s),
        "burst_s": key.burst_s,
    }


def _user_json(user: UserInfo) -> dict[str, Any]:
    return {
        "name": user.name,
        "state": user.state,
        "permissions": services_of(user.grants),
        "created_at": _time(user.created_at),
        "disabled_at": _time(user.disabled_at),
        "issuer": user.issuer,
    }


def _user_body(user: UserInfo) -> bytes:
    return orjson.dumps(_user_json(user))


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else time_text(to_us(moment))
