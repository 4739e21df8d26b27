"""The HTTP edge of logging in through a provider: `/api/v1/auth/oidc`. Browsers come here: out by `login`, back by `callback`.

Who is let in gets the refresh token's cookie, as after a password, and goes on to the path that `login` was asked for;
`/api/v1/auth/refresh` then gives the page its access token, so that no token ever stands in an address. A browser that asks for
a page is told in one what went wrong, everybody else in a problem document.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response

from access.errors import LoginNotOffered
from access.oidc.login import CALLBACK_PATH, Answer, OidcLogin
from access.settings import AccessSettings
from query.auth_api import set_refresh_cookie
from query.problems import PROBLEM_TYPE, ProblemRoute, problem_responses
from schemas.access import OidcOffer
from schemas.errors import InvalidInput

ATTEMPT_COOKIE: Final = "logfeed_oidc"
_PATH: Final = "/api/v1/auth/oidc"
_COOKIE_CHARS_MAX: Final = 4_096
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<h1>{title}</h1>
<p>{detail}</p>
<p><a href="{again}">Log in again</a></p>
</html>
"""
_REDIRECT: Final[dict[str, Any]] = {"Location": {"description": "Where to go.", "schema": {"type": "string"}}}


def make_oidc_router(login: OidcLogin | None, settings: AccessSettings) -> APIRouter:
    """The routes under /api/v1/auth/oidc. login: None where no provider is asked: 404."""
    router = APIRouter(prefix=_PATH, tags=["auth"], route_class=_PageRoute)
    # FastAPI's values are of many types.
    answers: dict[int | str, dict[str, Any]] = {
        303: {"description": "Go there.", "headers": _REDIRECT},
        **problem_responses(401, 403, 404, 422, 429, 502, 503),
    }
    answers[401]["description"] = (
        "The login is not of this browser, too old, or not what the provider said: start again."
    )
    answers[403]["description"] = "The provider or this installation does not let you in: `detail` says why."
    answers[404]["description"] = "Nobody logs in through a provider here."

    @router.get(
        "",
        summary="Is there a login provider?",
        response_model=None,
        responses={200: {"model": OidcOffer, "description": "Whether, and its name."}, **problem_responses(422, 503)},
    )
    async def oidc_offer() -> Response:
        """What whoever draws a button for it needs to know."""
        offer = {"offered": login is not None, "label": settings.oidc.label}
        return Response(orjson.dumps(offer), media_type="application/json")

    @router.get(
        "/login",
        summary="Log in through the provider",
        status_code=303,
        response_model=None,
        response_class=Response,
        responses=answers,
        openapi_extra={"parameters": [_parameter("return_to", "Path of this site to end at; / when left out.")]},
    )
    async def oidc_login(request: Request) -> Response:
        """Leads the browser to the provider; its way back is bound to this browser for ten minutes."""
        if login is None:
            raise LoginNotOffered
        leaving = await login.begin(_one(request, "return_to") or "/")
        response = Response(status_code=303, headers={"Location": leaving.address})
        response.set_cookie(
            ATTEMPT_COOKIE,
            leaving.cookie,
            max_age=leaving.cookie_s,
            path=_PATH,
            secure=settings.cookie_secure,
            httponly=True,
            samesite="lax",  # it comes back from another site
        )
        return response

    @router.get(
        CALLBACK_PATH.removeprefix(_PATH),
        summary="Come back from the provider",
        status_code=303,
        response_model=None,
        response_class=Response,
        responses=answers,
        openapi_extra={
            "parameters": [
                _parameter("state", "As it was sent there."),
                _parameter("code", "What the provider changes for an ID token, once."),
                _parameter("error", "Why there is no code (RFC 6749)."),
                _parameter("iss", "Which provider this comes from (RFC 9207)."),
            ]
        },
    )
    async def oidc_callback(request: Request) -> Response:
        """The provider sends browsers here. Begins a session as a password does, and goes on to where `login` was asked for."""
        if login is None:
            raise LoginNotOffered
        answer = Answer(
            state=_one(request, "state"),
            code=_one(request, "code"),
            error=_one(request, "error"),
            issuer=_one(request, "iss") or None,
        )
        cookie = request.cookies.get(ATTEMPT_COOKIE, "")[:_COOKIE_CHARS_MAX]
        entered = await login.finish(cookie, answer, address=request.client.host if request.client else "")
        response = Response(status_code=303, headers={"Location": entered.address})
        set_refresh_cookie(response, entered.tokens, settings)
        return response

    return router


class _PageRoute(ProblemRoute):
    """Problems as pages for browsers; no attempt outlives its way back."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler with problems."""
        handle = super().get_route_handler()

        async def handle_with_pages(request: Request) -> Response:
            response = await handle(request)
            if response.media_type == PROBLEM_TYPE and "text/html" in request.headers.get("Accept", ""):
                response = _page(response)
            if request.url.path == CALLBACK_PATH:
                response.delete_cookie(ATTEMPT_COOKIE, path=_PATH, httponly=True, samesite="lax")
            return response

        return handle_with_pages


def _page(problem: Response) -> Response:
    document = orjson.loads(problem.body)
    page = _PAGE.format(
        title=html.escape(document["title"]), detail=html.escape(document["detail"]), again=f"{_PATH}/login"
    )
    kept = {name: problem.headers[name] for name in ("Retry-After", "WWW-Authenticate") if name in problem.headers}
    return Response(page, problem.status_code, kept, "text/html; charset=utf-8")


def _one(request: Request, name: str) -> str:
    """A parameter that comes once or not at all. Raises InvalidInput."""
    found = request.query_params.getlist(name)
    if len(found) > 1:
        raise InvalidInput(f"{name}: expected it once, got it {len(found)} times")
    return found[0] if found else ""


def _parameter(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string"}}
