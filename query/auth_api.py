"""The HTTP edge of logging in: `/api/v1/auth`. Who is let in gets an access token in the body, to be sent as
`Authorization: Bearer`, and a refresh token in a cookie that no script reads, no other site sends and no other path sees.

Bodies are JSON of a few hundred bytes, read with limits of their own; other content types are refused, so that no form of
another site is taken.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import orjson
from fastapi import APIRouter, Request, Response

from access.errors import Unauthenticated
from access.principal import Authenticate, Principal
from access.sessions import Sessions, Tokens
from access.settings import AccessSettings
from query.bodies import read_json
from query.problems import ProblemRoute, problem_responses
from schemas.access import SECURITY, Identity, Login, TokenAnswer
from schemas.scope import ServiceScope

COOKIE: Final = "logfeed_refresh"
_PATH: Final = "/api/v1/auth"
_BODY_BYTES_MAX: Final = 8 * 1024
_COOKIE_CHARS_MAX: Final = 200
_NO_STORE: Final = {"Cache-Control": "no-store"}


class _Login(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=4_096)]


_login_decoder: Final = msgspec.json.Decoder(_Login)


def make_auth_router(sessions: Sessions, settings: AccessSettings, authenticate: Authenticate) -> APIRouter:
    """The routes under /api/v1/auth."""
    router = APIRouter(prefix=_PATH, tags=["auth"], route_class=ProblemRoute)
    request_body = {"required": True, "content": {"application/json": {"schema": Login.model_json_schema()}}}
    secured: dict[str, Any] = {"security": SECURITY}
    # FastAPI's values are of many types.
    answers: dict[int | str, dict[str, Any]] = {
        200: {"model": TokenAnswer, "description": "Let in; the refresh token is in the cookie."},
        **problem_responses(401, 403, 422, 429, 503, is_login=True),
    }

    @router.post(
        "/login",
        summary="Log in",
        response_model=None,
        responses=answers,
        openapi_extra={"requestBody": request_body},
    )
    async def login(request: Request) -> Response:
        """A name and a password for an access token of some minutes, and a session that `refresh` prolongs."""
        expected = '{"name": "…", "password": "…"}'
        wanted = await read_json(request, _login_decoder, bytes_max=_BODY_BYTES_MAX, expected=expected)
        address = request.client.host if request.client else ""
        return _let_in(await sessions.login(wanted.name, wanted.password, address=address), settings)

    @router.post("/refresh", summary="Stay logged in", response_model=None, responses=answers)
    async def refresh(request: Request) -> Response:
        """The cookie for a new access token and a new cookie. A refresh token that comes a second time ends its session."""
        token = request.cookies.get(COOKIE, "")
        if not 0 < len(token) <= _COOKIE_CHARS_MAX:
            raise Unauthenticated("no session: log in")
        address = request.client.host if request.client else ""
        return _let_in(await sessions.refresh(token, address=address), settings)

    @router.post(
        "/logout",
        summary="Log out",
        status_code=204,
        response_model=None,
        response_class=Response,
        responses={
            204: {"description": "The session has ended, if there was one."},
            **problem_responses(403, 422, 503),
        },
    )
    async def logout(request: Request) -> Response:
        """End the session of the cookie, with every token that came of it."""
        token = request.cookies.get(COOKIE, "")
        if 0 < len(token) <= _COOKIE_CHARS_MAX:
            await sessions.logout(token, address=request.client.host if request.client else "")
        response = Response(status_code=204, headers=_NO_STORE)
        response.delete_cookie(COOKIE, path=_PATH, secure=settings.cookie_secure, httponly=True, samesite="strict")
        return response

    @router.get(
        "/me",
        summary="Who am I?",
        response_model=None,
        responses={200: {"model": Identity, "description": "You."}, **problem_responses(401, 403, 422, 503)},
        openapi_extra=secured,
    )
    async def me(request: Request) -> Response:
        """Whose key or token this is, and what it may."""
        return Response(
            orjson.dumps(_identity(await authenticate(request))), media_type="application/json", headers=_NO_STORE
        )

    return router


def _let_in(tokens: Tokens, settings: AccessSettings) -> Response:
    body = {"access_token": tokens.access_token, "token_type": "Bearer", "expires_in": tokens.access_s}
    response = Response(orjson.dumps(body), media_type="application/json", headers=_NO_STORE)
    set_refresh_cookie(response, tokens, settings)
    return response


def set_refresh_cookie(response: Response, tokens: Tokens, settings: AccessSettings) -> None:
    """Give the browser its session: for no script, no other site, no other path."""
    response.set_cookie(
        COOKIE,
        tokens.refresh_token,
        max_age=tokens.refresh_s,
        path=_PATH,
        secure=settings.cookie_secure,
        httponly=True,
        samesite="strict",
    )


def _identity(principal: Principal) -> dict[str, Any]:
    permissions = {
        "write": principal.may_write,
        "read": principal.may_read,
        "tail": principal.may_tail,
        "export": principal.may_export,
        "alert": principal.may_alert,
        "admin": principal.may_admin,
        "host": principal.may_host,
    }
    return {
        "subject": principal.subject,
        "name": principal.name,
        "permissions": {name: _services(scope) for name, scope in permissions.items() if not scope.is_empty},
    }


def _services(scope: ServiceScope) -> list[str]:
    if scope.everything:
        return ["*"]
    return sorted(scope.names - scope.excluded) + [f"{prefix}*" for prefix in sorted(scope.prefixes)]
