"""The HTTP edge of alerting: /api/v1/alerts. Every handler asks for the permission `alert`; `service.py` decides the rest.

Bodies are read here with limits of their own, JSON only, so that no form of another site is taken. What asks the database takes
one of the places for questions, as every other question of its subject does; a trial does so piece by piece. Every change is
written down where questions are, and so is every trial.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import orjson
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ValidationError

from access.audit import AuditLog
from access.errors import Forbidden
from access.principal import Authenticate, Principal
from alerts.errors import RuleInvalid
from alerts.matching import Matcher
from alerts.owners import ScopeOf
from alerts.problems import AlertRoute, problem_responses
from alerts.rule_files import explain
from alerts.rule_store import RuleStore
from alerts.rules import RuleDocument
from alerts.service import AlertService, read_document
from alerts.trial import Trials
from alerts.written import Written
from db.database import Database
from runtime.clock import Clock
from runtime.json_body import json_body
from schemas.access import SECURITY
from schemas.alerts import (
    AlertList,
    BreakerList,
    NewSilence,
    NewTrial,
    NotificationList,
    Reset,
    RuleList,
    RuleModel,
    SilenceList,
    SilenceModel,
    TrialModel,
)
from schemas.errors import InvalidInput
from search.params import parse_time

Body = TypeVar("Body", bound=BaseModel)
Answer = TypeVar("Answer")
Place = Callable[[Principal], AbstractAsyncContextManager[None]]
"""One of the places for questions. Raises TooManyQuestions, Overloaded."""
LIMIT_MAX: Final = 500
LIMIT_DEFAULT: Final = 100
_BODY_BYTES_MAX: Final = 256 * 1024
_STATES: Final = {"alerts": ("firing", "resolved"), "notifications": ("waiting", "sent", "dead")}
RuleName = Annotated[str, Path(description="The rule's name.", examples=["payment-errors"])]
SilenceId = Annotated[str, Path(description="The silence's id.")]


class AlertApi:
    """A service of the HTTP application: asks the database only."""

    def __init__(
        self, service: AlertService, authenticate: Authenticate, *, place: Place, written: Written, clock: Clock
    ) -> None:
        """authenticate: the same as of all other services."""
        self.router = _router(service, authenticate, place, written, clock)

    async def start(self) -> None:
        """See RunningService."""

    async def stop(self) -> None:
        """See RunningService."""

    def ready(self) -> list[str]:
        """See HttpService."""
        return []


def make_alert_api(
    database: Database,
    scope_of: ScopeOf,
    authenticate: Authenticate,
    trials: Trials,
    *,
    place: Place,
    audit: AuditLog | None,
    topic: str,
    clock: Clock,
) -> AlertApi:
    """database: opened and closed by the caller. place: of a question. audit: None writes nothing down."""
    service = AlertService(RuleStore(database), scope_of, trials, topic=topic)
    return AlertApi(service, authenticate, place=place, written=Written(audit), clock=clock)


def _router(
    service: AlertService, authenticate: Authenticate, place: Place, written: Written, clock: Clock
) -> APIRouter:
    router = APIRouter(prefix="/api/v1/alerts", tags=["alerts"], route_class=AlertRoute)

    async def asker(request: Request) -> Principal:
        principal = await authenticate(request)
        if principal.may_alert.is_empty:
            raise Forbidden("you may not set alerts on the logs of any service")
        return principal

    async def changer(request: Request) -> Principal:
        principal = await asker(request)
        written.check()
        return principal

    async def placed(principal: Principal, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        async with place(principal):
            return await ask()

    @router.get("", summary="Alerts", **_documented(AlertList, 404, 422, parameters=_listing("alerts")))
    async def alerts(request: Request) -> Response:
        """What fires now, and what did lately."""
        principal = await asker(request)
        asked = _parameters(request, "rule", "state", "limit")
        state, limit = _state(asked, "alerts"), _limit(asked)
        found = await placed(
            principal, lambda: service.alerts(principal, state=state, rule=asked.get("rule"), limit=limit)
        )
        return _answer(found)

    @router.get("/rules", summary="Rules", **_documented(RuleList, 422))
    async def alert_rules(request: Request) -> Response:
        """Rules about services that you may set alerts on, and how they fare."""
        principal = await asker(request)
        _parameters(request)
        return _answer(await placed(principal, lambda: service.rules(principal)))

    @router.post(
        "/rules",
        summary="A new rule",
        status_code=201,
        **_documented(RuleModel, 409, 422, status=201, body=RuleDocument),
    )
    async def create_alert_rule(request: Request) -> Response:
        """You become its owner: it sees what you may see at each moment."""
        principal = await changer(request)
        document = read_document(await _body(request))
        made = await placed(principal, lambda: service.create(principal, document))
        written.change(request, principal, f"made the rule {document.name}", f"rule:{document.name}")
        return _answer(made, 201)

    @router.post("/trials", summary="Try a rule on the past", **_documented(TrialModel, 422, body=NewTrial))
    async def try_alert_rule(request: Request) -> Response:
        """When the rule would have fired on stored logs that you may set alerts on and read, and how many messages would have
        come of it. Nothing is kept. Bounded in logs and time: `tried_through` says how far it came."""
        principal = await changer(request)
        _parameters(request)
        wanted = _read(NewTrial, await _body(request))
        now_us = clock.now_us()
        tried = await service.try_out(
            principal,
            read_document(wanted.rule),
            start_us=parse_time(wanted.start_time, now_us, parameter="start_time"),
            end_us=parse_time(wanted.end_time, now_us, parameter="end_time"),
        )
        written.trial(request, principal, tried["logs"])
        return _answer(tried)

    @router.get("/rules/{name}", summary="One rule", **_documented(RuleModel, 404, 422))
    async def alert_rule(name: RuleName, request: Request) -> Response:
        """The document as it was written, and how it fares."""
        principal = await asker(request)
        _parameters(request)
        return _answer(await placed(principal, lambda: service.rule(principal, name)))

    @router.put("/rules/{name}", summary="Change a rule", **_documented(RuleModel, 404, 409, 422, body=RuleDocument))
    async def replace_alert_rule(name: RuleName, request: Request) -> Response:
        """The whole document. You become its owner. Other query, window or condition: it begins anew, and what fires is
        resolved."""
        principal = await changer(request)
        document = read_document(await _body(request))
        changed = await placed(principal, lambda: service.replace(principal, name, document))
        written.change(request, principal, f"changed the rule {name}", f"rule:{name}")
        return _answer(changed)

    @router.delete(
        "/rules/{name}", summary="Remove a rule", status_code=204, **_documented(None, 404, 409, 422, status=204)
    )
    async def delete_alert_rule(name: RuleName, request: Request) -> Response:
        """The rule is no more; what fires of it is resolved."""
        principal = await changer(request)
        _parameters(request)
        await placed(principal, lambda: service.delete(principal, name))
        written.change(request, principal, f"removed the rule {name}", f"rule:{name}")
        return Response(status_code=204)

    @router.get("/silences", summary="Silences", **_documented(SilenceList, 422))
    async def alert_silences(request: Request) -> Response:
        """Those in force, to come, or over since a day."""
        principal = await asker(request)
        _parameters(request)
        return _answer(await placed(principal, lambda: service.silences(principal)))

    @router.post(
        "/silences",
        summary="A new silence",
        status_code=201,
        **_documented(SilenceModel, 409, 422, status=201, body=NewSilence),
    )
    async def create_alert_silence(request: Request) -> Response:
        """Alerts that match are not told while it lasts. Name a rule of yours, unless you may set alerts on all services."""
        principal = await changer(request)
        wanted = _read(NewSilence, await _body(request))
        try:
            matchers = [Matcher(each.label, each.op, each.value) for each in wanted.matchers]
        except ValueError as error:
            raise RuleInvalid([("matchers", str(error))]) from error
        starts_at = None if wanted.starts_at is None else _time(wanted.starts_at, "starts_at")
        ends_at = _time(wanted.ends_at, "ends_at")
        made = await placed(
            principal,
            lambda: service.silence(principal, matchers, starts_at=starts_at, ends_at=ends_at, comment=wanted.comment),
        )
        texts = ", ".join(each.text for each in matchers)
        what = f"silenced alerts with {texts} from {made['starts_at']} to {made['ends_at']}"
        written.change(request, principal, what, f"silence:{made['id']}")
        return _answer(made, 201)

    @router.delete(
        "/silences/{silence_id}", summary="End a silence", status_code=204, **_documented(None, 404, 422, status=204)
    )
    async def end_alert_silence(silence_id: SilenceId, request: Request) -> Response:
        """It holds no longer. Harmless when it is over."""
        principal = await changer(request)
        _parameters(request)
        await placed(principal, lambda: service.end_silence(principal, silence_id))
        written.change(request, principal, f"ended the silence {silence_id}", f"silence:{silence_id}")
        return Response(status_code=204)

    @router.get("/breakers", summary="Circuit breakers", **_documented(BreakerList, 422))
    async def alert_breakers(request: Request) -> Response:
        """Where the breaker of each rule and channel stands that anything passed lately."""
        principal = await asker(request)
        _parameters(request)
        return _answer(await placed(principal, lambda: service.breakers(principal)))

    @router.post(
        "/breakers/reset",
        summary="Close a breaker",
        status_code=204,
        **_documented(None, 404, 422, status=204, body=Reset),
    )
    async def reset_alert_breaker(request: Request) -> Response:
        """The evaluator closes it within seconds, and tells what was held back."""
        principal = await changer(request)
        wanted = _read(Reset, await _body(request))
        await placed(principal, lambda: service.reset(principal, wanted.rule, wanted.channel))
        what = f"closed the breaker of the rule {wanted.rule} for the channel {wanted.channel}"
        written.change(request, principal, what, f"rule:{wanted.rule}")
        return Response(status_code=204)

    @router.get(
        "/notifications",
        summary="Messages",
        **_documented(NotificationList, 404, 422, parameters=_listing("notifications")),
    )
    async def alert_notifications(request: Request) -> Response:
        """Messages of all channels, newest first, and what became of them."""
        principal = await asker(request)
        asked = _parameters(request, "rule", "channel", "state", "before", "limit")
        state, limit = _state(asked, "notifications"), _limit(asked)
        rule, channel, before = map(asked.get, ("rule", "channel", "before"))
        found = await placed(
            principal,
            lambda: service.notifications(
                principal, rule=rule, channel=channel, state=state, before=before, limit=limit
            ),
        )
        return _answer(found)

    return router


def _documented(
    model: type[BaseModel] | None,
    *problems: int,
    status: int = 200,
    body: type[BaseModel] | None = None,
    parameters: Iterable[dict[str, Any]] = (),
) -> dict[str, Any]:
    """What the OpenAPI document says of a route; FastAPI's values are of many types."""
    answer: dict[str, Any] = {"description": "The answer." if model else "It is done, or will be."}
    if model is not None:
        answer["model"] = model
    extra: dict[str, Any] = {"security": SECURITY}
    if declared := list(parameters):
        extra["parameters"] = declared
    if body is not None:
        schema = body.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": _inlined(schema)}}}
    return {
        "response_class": Response,
        "response_model": None,
        "responses": {status: answer, **problem_responses(401, 403, *problems, 429, 503)},
        "openapi_extra": extra,
    }


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema in one piece: FastAPI does not know of its definitions."""
    definitions = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:  # any JSON value
        if isinstance(node, dict):
            if "$ref" in node:
                return resolved(definitions[node["$ref"].rpartition("/")[2]])
            return {key: resolved(value) for key, value in node.items()}
        return [resolved(each) for each in node] if isinstance(node, list) else node

    whole: dict[str, Any] = resolved(schema)
    return whole


def _listing(what: str) -> list[dict[str, Any]]:
    texts = {"rule": "Only of this rule.", "state": f"Only {' or '.join(_STATES[what])}."}
    if what == "notifications":
        texts |= {
            "channel": "Only of this channel.",
            "before": "Those before the message with this id (`next_before`).",
        }
    declared: list[dict[str, Any]] = [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}, "description": text}
        for name, text in texts.items()
    ]
    limit = {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}
    return [*declared, {"name": "limit", "in": "query", "required": False, "schema": limit, "description": "At most."}]


def _parameters(request: Request, *known: str) -> dict[str, str]:
    """Raises RuleInvalid for one that is unknown or given twice."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known or name in found:
            raise RuleInvalid([(name[:60], "is given twice" if name in found else "there is no such parameter")])
        found[name] = value
    return found


def _state(asked: dict[str, str], what: str) -> str | None:
    state = asked.get("state")
    if state is not None and state not in _STATES[what]:
        raise RuleInvalid([("state", f"expected {' or '.join(_STATES[what])}, got {state[:60]!r}")])
    return state


def _limit(asked: dict[str, str]) -> int:
    text = asked.get("limit", str(LIMIT_DEFAULT))
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= LIMIT_MAX):
        raise RuleInvalid([("limit", f"expected 1..{LIMIT_MAX}, got {text[:60]!r}")])
    return int(text)


def _time(text: str, field: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or not 1970 <= moment.year <= 9_000:
        raise RuleInvalid([(field, f"expected a time with its zone such as 2026-01-31T12:00:00Z, got {text[:60]!r}")])
    return moment


def _read(model: type[Body], content: Any) -> Body:  # JSON
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise RuleInvalid([(".".join(map(str, place)), text) for place, text in explain(error)]) from error


async def _body(request: Request) -> Any:  # a JSON value
    """Raises InvalidInput."""
    body = await json_body(request, bytes_max=_BODY_BYTES_MAX)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is no JSON: {error}") from error


def _answer(document: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")
