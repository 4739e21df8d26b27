"""The HTTP edge of bookmarks and saved views: whoever is somebody has their own, and sees nobody else's."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
import orjson
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from access.principal import Authenticate
from query import params
from query.bodies import read_json
from query.patterns import Place
from query.personal import parameters
from query.problems import ProblemRoute, problem_responses, without_references
from query.settings import QuerySettings
from runtime.path_text import any_text
from schemas.access import SECURITY
from schemas.personal import BookmarkList, BookmarkModel, NewBookmark, NewView, ViewList, ViewModel
from schemas.times import time_text
from store.page_sql import to_us
from store.personal.kept import Bookmark, BookmarkKind, PersonalStore, SavedView

_BODY_BYTES_MAX: Final = 32 * 1024
_NO_STORE: Final = {"Cache-Control": "no-store"}
_Kind = Annotated[
    str, Path(description="What it is of.", json_schema_extra={"enum": [str(each) for each in BookmarkKind]})
]
_TargetId = Annotated[str, Path(description="Of the log, connection or experiment; it may have `/` in it.")]
_Name = Annotated[str, Path(description="The view's name, 1 to 100 characters; it may have `/` in it.")]


class _NewBookmark(msgspec.Struct, forbid_unknown_fields=True):
    note: str = ""


class _NewView(msgspec.Struct, forbid_unknown_fields=True):
    address: str


_bookmark_decoder: Final = msgspec.json.Decoder(_NewBookmark)
_view_decoder: Final = msgspec.json.Decoder(_NewView)


def make_personal_router(
    store: PersonalStore, settings: QuerySettings, authenticate: Authenticate, place: Place
) -> APIRouter:
    """The routes /api/v1/bookmarks and /api/v1/views. place: of a question."""
    router = APIRouter(prefix="/api/v1", tags=["personal"], route_class=ProblemRoute)

    @router.get(
        "/bookmarks", summary="Your bookmarks", **_documented(BookmarkList, 422, parameters=parameters.BOOKMARKS)
    )
    async def bookmarks(request: Request) -> Response:
        """What you have marked to find it again, newest first."""
        principal = await authenticate(request)
        kind = parameters.parse_kind(request.query_params.multi_items())
        async with place(principal):
            found = await store.bookmarks(principal.subject, kind=kind)
        return _answer({"bookmarks": list(map(_bookmark_json, found))})

    @router.put(
        f"/bookmarks/{{kind}}/{any_text('target_id')}",
        summary="Keep a bookmark",
        **_documented(BookmarkModel, 409, 422, body=NewBookmark),
    )
    async def keep_bookmark(kind: _Kind, target_id: _TargetId, request: Request) -> Response:
        """Make it, or change its note. What it is of need not exist."""
        principal = await authenticate(request)
        params.parse_none(request.query_params.multi_items())
        checked = parameters.checked_kind(kind)
        target = parameters.checked_target(checked, target_id)
        wanted = await read_json(request, _bookmark_decoder, bytes_max=_BODY_BYTES_MAX, expected='{"note": "…"}, or {}')
        note = parameters.checked_note(wanted.note)
        async with place(principal):
            kept = await store.keep_bookmark(principal.subject, checked, target, note, most=settings.bookmarks_max)
        return _answer(_bookmark_json(kept))

    @router.delete(
        f"/bookmarks/{{kind}}/{any_text('target_id')}",
        summary="Remove a bookmark",
        status_code=204,
        **_documented(None, 422),
    )
    async def drop_bookmark(kind: _Kind, target_id: _TargetId, request: Request) -> Response:
        """Harmless where there is none."""
        principal = await authenticate(request)
        params.parse_none(request.query_params.multi_items())
        checked = parameters.checked_kind(kind)
        target = parameters.checked_target(checked, target_id)
        async with place(principal):
            await store.drop_bookmark(principal.subject, checked, target)
        return Response(status_code=204, headers=_NO_STORE)

    @router.get("/views", summary="Your saved views", **_documented(ViewList, 422))
    async def views(request: Request) -> Response:
        """Views of the page that you have given a name, by name."""
        principal = await authenticate(request)
        params.parse_none(request.query_params.multi_items())
        async with place(principal):
            found = await store.views(principal.subject)
        return _answer({"views": list(map(_view_json, found))})

    @router.put(f"/views/{any_text('name')}", summary="Save a view", **_documented(ViewModel, 409, 422, body=NewView))
    async def keep_view(name: _Name, request: Request) -> Response:
        """Make it, or change where it leads: a path of this site, with its query."""
        principal = await authenticate(request)
        params.parse_none(request.query_params.multi_items())
        checked = parameters.checked_name(name)
        wanted = await read_json(request, _view_decoder, bytes_max=_BODY_BYTES_MAX, expected='{"address": "/…"}')
        address = parameters.checked_address(wanted.address)
        async with place(principal):
            kept = await store.keep_view(principal.subject, checked, address, most=settings.views_max)
        return _answer(_view_json(kept))

    @router.delete(
        f"/views/{any_text('name')}", summary="Remove a saved view", status_code=204, **_documented(None, 422)
    )
    async def drop_view(name: _Name, request: Request) -> Response:
        """Harmless where there is none."""
        principal = await authenticate(request)
        params.parse_none(request.query_params.multi_items())
        checked = parameters.checked_name(name)
        async with place(principal):
            await store.drop_view(principal.subject, checked)
        return Response(status_code=204, headers=_NO_STORE)

    return router


def _documented(
    model: type[BaseModel] | None,
    *problems: int,
    parameters: tuple[params.Parameter, ...] = (),
    body: type[BaseModel] | None = None,
) -> dict[str, Any]:
    """What the OpenAPI document says of a route; FastAPI's values are of many types."""
    answer: dict[str, Any] = {"description": "It is gone."}
    if model is not None:
        answer = {"model": model, "description": "The answer."}
    extra: dict[str, Any] = {"security": SECURITY}
    if parameters:
        extra["parameters"] = [each.openapi() for each in parameters]
    if body is not None:
        schema = without_references(body)
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {
        "response_class": Response,
        "response_model": None,
        "responses": {204 if model is None else 200: answer, **problem_responses(401, 403, *problems, 429, 503)},
        "openapi_extra": extra,
    }


def _answer(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json", headers=_NO_STORE)


def _bookmark_json(bookmark: Bookmark) -> dict[str, str]:
    return {
        "kind": bookmark.kind,
        "target_id": bookmark.target_id,
        "note": bookmark.note,
        "created_at": _time(bookmark.created_at),
    }


def _view_json(view: SavedView) -> dict[str, str]:
    return {
        "name": view.name,
        "address": view.address,
        "created_at": _time(view.created_at),
        "changed_at": _time(view.changed_at),
    }


def _time(moment: datetime) -> str:
    return time_text(to_us(moment))
