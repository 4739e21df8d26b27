"""The HTTP edge of administration: /api/v1/keys and /api/v1/users. See docs/access.md.

What opens something is answered once, to whoever made it, and nothing here is kept by browsers or proxies. No cookie gives a
right; every change is written down where questions are.
"""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from access.audit import QUESTION_CHARS_MAX, AuditLog, Change
from access.principal import Authenticate, Principal
from query import params
from query.accounts import parameters
from query.accounts.service import AccountAnswers, Changed, check_admin
from query.audit import look_of
from query.json_body import read_json
from query.problems import ProblemRoute, problem_responses, without_references
from schemas.access import SECURITY
from schemas.accounts import (
    KeyList,
    MadeKey,
    NewKey,
    NewPassword,
    NewUser,
    SessionList,
    UserChange,
    UserList,
    UserModel,
)
from search.params import ParameterError

_NO_STORE: Final = {"Cache-Control": "no-store"}
_JSON: Final = "application/json"
Prefix = Annotated[str, Path(description="The characters of the key after `lf_`.", examples=["3kzj6qvw2xah"])]
UserName = Annotated[str, Path(description="The user's name.", examples=["ann"])]


def make_accounts_router(answers: AccountAnswers, authenticate: Authenticate, audit: AuditLog | None) -> APIRouter:
    """The routes /api/v1/keys and /api/v1/users. audit: None writes nothing down."""
    router = APIRouter(prefix="/api/v1", tags=["accounts"], route_class=ProblemRoute)

    async def somebody(request: Request) -> Principal:
        principal = await authenticate(request)
        if len(request.scope["query_string"]) > QUESTION_CHARS_MAX:
            raise ParameterError("query string", f"expected at most {QUESTION_CHARS_MAX} characters")
        if audit is not None:
            audit.check()
        return principal

    async def admin(request: Request) -> Principal:
        """Before the body is looked at: whoever may nothing learns nothing of it."""
        principal = await somebody(request)
        check_admin(principal)
        return principal

    def shown(request: Request, principal: Principal, body: bytes) -> Response:
        if audit is not None:
            audit.note(principal, look_of(request, rows=0))
        return Response(body, 200, _NO_STORE, _JSON)

    def done(request: Request, principal: Principal, changed: Changed, status: int) -> Response:
        if audit is not None:
            address = request.client.host if request.client else ""
            path = quote(request.scope["path"])
            audit.note_change(principal, Change(changed.what, changed.target, changed.grants, path, address))
        return Response(changed.body, status, _NO_STORE, _JSON if changed.body else None)

    @router.get("/keys", summary="Keys", **_documented(200, KeyList, 400, parameters=parameters.KEYS))
    async def list_keys(request: Request) -> Response:
        """API keys, the one that was made last first. Needs `admin` on all services."""
        principal = await admin(request)
        question = parameters.parse_keys(request.query_params.multi_items())
        return shown(request, principal, await answers.keys(question, principal))

    @router.post("/keys", summary="Make a key", status_code=201, **_documented(201, MadeKey, 409, body=NewKey))
    async def make_key(request: Request) -> Response:
        """The key is in this answer and nowhere else: only its hash is kept. Needs `admin` on all services."""
        principal = await admin(request)
        params.parse_none(request.query_params.multi_items())
        wanted = await read_json(request, NewKey)
        return done(request, principal, await answers.make_key(wanted, principal), 201)

    @router.delete("/keys/{prefix}", summary="Revoke a key", status_code=204, **_documented(204, None, 404, 409))
    async def revoke_key(prefix: Prefix, request: Request) -> Response:
        """For good: nobody lets it in from two seconds later on. Harmless when repeated. Needs `admin` on all services."""
        principal = await admin(request)
        params.parse_none(request.query_params.multi_items())
        return done(request, principal, await answers.revoke_key(prefix, principal), 204)

    @router.get("/users", summary="Users", **_documented(200, UserList, 400, parameters=parameters.USERS))
    async def list_users(request: Request) -> Response:
        """People by name, disabled ones too. Needs `admin` on all services."""
        principal = await admin(request)
        question = parameters.parse_users(request.query_params.multi_items())
        return shown(request, principal, await answers.users(question, principal))

    @router.post("/users", summary="Make a user", status_code=201, **_documented(201, UserModel, 409, body=NewUser))
    async def make_user(request: Request) -> Response:
        """Somebody who logs in with this password. Needs `admin` on all services."""
        principal = await admin(request)
        params.parse_none(request.query_params.multi_items())
        wanted = await read_json(request, NewUser)
        return done(request, principal, await answers.make_user(wanted, principal), 201)

    @router.patch("/users/{name}", summary="Change a user", **_documented(200, UserModel, 404, 409, body=UserChange))
    async def change_user(name: UserName, request: Request) -> Response:
        """What they may, and whether they are let in: everywhere within two seconds. Needs `admin` on all services."""
        principal = await admin(request)
        params.parse_none(request.query_params.multi_items())
        wanted = await read_json(request, UserChange)
        return done(request, principal, await answers.change_user(name, wanted, principal), 200)

    @router.post(
        "/users/{name}/password",
        summary="Set a password",
        status_code=204,
        **_documented(204, None, 404, 409, body=NewPassword),
    )
    async def set_password(name: UserName, request: Request) -> Response:
        """The user's sessions end. Your own takes your `current_password`, and wrong ones are slowed down as at logging in;
        another's takes `admin` on all services."""
        principal = await somebody(request)
        answers.check_is_own(name, principal)
        params.parse_none(request.query_params.multi_items())
        wanted = await read_json(request, NewPassword)
        address = request.client.host if request.client else ""
        return done(request, principal, await answers.set_password(name, wanted, principal, address=address), 204)

    @router.get("/users/{name}/sessions", summary="Sessions of a user", **_documented(200, SessionList, 404))
    async def list_sessions(name: UserName, request: Request) -> Response:
        """Logins that go on. Your own; another's takes `admin` on all services."""
        principal = await somebody(request)
        answers.check_is_own(name, principal)
        params.parse_none(request.query_params.multi_items())
        return shown(request, principal, await answers.sessions_of(name, principal))

    @router.delete(
        "/users/{name}/sessions", summary="Sign out everywhere", status_code=204, **_documented(204, None, 404)
    )
    async def end_sessions(name: UserName, request: Request) -> Response:
        """All sessions of the user end, everywhere within two seconds; yours too, where the user is yourself. Another's takes
        `admin` on all services."""
        principal = await somebody(request)
        answers.check_is_own(name, principal)
        params.parse_none(request.query_params.multi_items())
        return done(request, principal, await answers.end_sessions(name, principal), 204)

    return router


def _documented(
    status: int,
    model: type[BaseModel] | None,
    *problems: int,
    parameters: tuple[params.Parameter, ...] = (),
    body: type[BaseModel] | None = None,
) -> dict[str, Any]:
    """What the OpenAPI document says of a route; FastAPI's values are of many types."""
    answer: dict[str, Any] = {"description": "It is done."}
    if model is not None:
        answer = {"model": model, "description": "The answer."}
    extra: dict[str, Any] = {"security": SECURITY}
    if parameters:
        extra["parameters"] = [each.openapi() for each in parameters]
    if body is not None:
        schema = without_references(body)
        extra["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema}}}
    return {
        "response_class": Response,
        "response_model": None,
        "responses": {status: answer, **problem_responses(401, 403, *problems, 422, 429, 503)},
        "openapi_extra": extra,
    }
