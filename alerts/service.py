"""What of alerting is asked over HTTP, decided here: who may see and change which rule (INV-5).

A rule is seen and changed by who may set alerts on every service that it reaches: those of its query that its owner may see.
So nobody learns by a rule what they may not read, and nobody can widen one beyond their own right. Whoever changes a rule
becomes its owner. Rules of files are changed in the files. Alerts and messages are shown to who may see what their rule could
see when they were made: by then it may have had another owner, or been another rule of that name. Lines that an alert keeps
are shown only to who may see their service.

A silence keeps alerts quiet that others wait for. So its matchers must name a rule exactly that its author may change; only who
may set alerts on all services may silence by other labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from access.errors import Forbidden
from access.principal import Principal
from alerts.errors import NoSuchRule, NoSuchSilence, RuleInvalid
from alerts.matching import Matcher
from alerts.owners import ScopeOf
from alerts.reach import Reach, both, is_within, marks, of_scope, reach
from alerts.rule_files import explain
from alerts.rule_store import RuleStore, Shown, StoredRule, StoredSilence
from alerts.rules import FILE_OWNER, RuleDocument
from alerts.trial import Trials
from schemas.scope import ServiceScope
from schemas.times import time_text

SILENCE_MAX: Final = timedelta(days=366)
# Channels and hosts are the operator's: what they are called, and answer, is for who may set alerts on all services.
_UNTOLD: Final = "the channel did not take it: who may set alerts on all services sees why"
_SOMEBODY: Final = "a process of this installation"


class AlertService:
    """Rules, silences, breakers and alerts for principals."""

    def __init__(self, store: RuleStore, scope_of: ScopeOf, trials: Trials, *, topic: str) -> None:
        """scope_of: what owners may see now. trials: of rules on the past."""
        self._store = store
        self._scope_of = scope_of
        self._trials = trials
        self._topic = topic

    # --- rules ----------------------------------------------------------------------------------------------------

    async def rules(self, principal: Principal) -> dict[str, Any]:
        """RuleList."""
        _, _, figures = await self._store.status(self._topic)
        return {"rules": [_rule_json(rule, figures) for rule in await self._visible(principal)]}

    async def rule(self, principal: Principal, name: str) -> dict[str, Any]:
        """RuleModel. Raises NoSuchRule."""
        rule = await self._mine(principal, name)
        _, _, figures = await self._store.status(self._topic)
        return _rule_json(rule, figures)

    async def create(self, principal: Principal, document: RuleDocument) -> dict[str, Any]:
        """RuleModel. Raises Forbidden, RuleConflict, RuleInvalid."""
        _check_reach(principal, document)
        await self._store.create(document, owner=principal.subject, by=_who(principal))
        return await self.rule(principal, document.name)

    async def replace(self, principal: Principal, name: str, document: RuleDocument) -> dict[str, Any]:
        """RuleModel. Raises Forbidden, NoSuchRule, RuleConflict, RuleInvalid."""
        if document.name != name:
            raise RuleInvalid([("name", f"expected {name}: a rule keeps its name")])
        expected = await self._mine(principal, name)
        _check_changeable(expected)
        _check_reach(principal, document)
        await self._store.replace(document, owner=principal.subject, by=_who(principal), expected=expected)
        return await self.rule(principal, name)

    async def delete(self, principal: Principal, name: str) -> None:
        """Raises Forbidden, NoSuchRule, RuleConflict."""
        expected = await self._mine(principal, name)
        _check_changeable(expected)
        await self._store.delete(name, expected=expected)

    async def try_out(
        self, principal: Principal, document: RuleDocument, *, start_us: int, end_us: int
    ) -> dict[str, Any]:
        """TrialModel. Raises Forbidden, RuleInvalid, Overloaded."""
        if start_us >= end_us:
            raise RuleInvalid([("start_time", "expected a time before end_time")])
        _check_reach(principal, document)
        return await self._trials.run(principal, document, start_us=start_us, end_us=end_us)

    # --- alerts and messages --------------------------------------------------------------------------------------

    async def alerts(self, principal: Principal, *, state: str | None, rule: str | None, limit: int) -> dict[str, Any]:
        """AlertList."""
        shown = await self._shown(principal, rule)
        found = await self._store.alerts(shown, state=state, limit=limit)
        leader, saved_at, figures = await self._store.status(self._topic)
        watermark_us = figures.get("watermark_us")
        return {
            "alerts": [_alert_json(alert, principal.may_alert) for alert in found],
            "status": {
                "leader": _SOMEBODY if leader is not None and not principal.may_alert.everything else leader,
                "saved_at": _time(saved_at),
                "watermark": time_text(watermark_us) if watermark_us else None,
                "gaps": figures.get("gaps", 0),
            },
        }

    async def notifications(
        self,
        principal: Principal,
        *,
        rule: str | None,
        channel: str | None,
        state: str | None,
        before: str | None,
        limit: int,
    ) -> dict[str, Any]:
        """NotificationList."""
        shown = await self._shown(principal, rule)
        found = await self._store.notifications(shown, channel=channel, state=state, before=before, limit=limit)
        for each in found:
            each["created_at"], each["ended_at"] = _time(each["created_at"]), _time(each["ended_at"])
            if each["problem"] is not None and not principal.may_alert.everything:
                each["problem"] = _UNTOLD
            for alert in each["message"].get("alerts", []):
                alert["logs"] = [one for one in alert["logs"] if principal.may_alert.permits(one["service_name"])]
        return {"notifications": found, "next_before": found[-1]["id"] if len(found) == limit else None}

    # --- silences -------------------------------------------------------------------------------------------------

    async def silences(self, principal: Principal) -> dict[str, Any]:
        """SilenceList: those the principal may make."""
        names = {rule.document.name for rule in await self._visible(principal)}
        now = datetime.now(UTC)
        shown = [each for each in await self._store.silences() if _may_silence(principal, each.matchers, names)]
        return {"silences": [_silence_json(each, now) for each in shown]}

    async def silence(
        self,
        principal: Principal,
        matchers: list[Matcher],
        *,
        starts_at: datetime | None,
        ends_at: datetime,
        comment: str,
    ) -> dict[str, Any]:
        """SilenceModel. Raises Forbidden, RuleInvalid, RuleConflict."""
        now = datetime.now(UTC)
        starts_at = starts_at or now
        if not max(starts_at, now) < ends_at <= starts_at + SILENCE_MAX:
            raise RuleInvalid([("ends_at", "expected a time after now and after starts_at, 366 days after it at most")])
        names = {rule.document.name for rule in await self._visible(principal)}
        if not _may_silence(principal, tuple(matchers), names):
            raise Forbidden(
                "name a rule that you may change (rule=NAME): only who may set alerts on all services silences by other labels"
            )
        silence_id = await self._store.add_silence(
            matchers,
            starts_at=starts_at,
            ends_at=ends_at,
            author=_who(principal),
            subject=principal.subject,
            comment=comment,
        )
        return _silence_json(await self._store.silence(silence_id), now)

    async def end_silence(self, principal: Principal, silence_id: str) -> None:
        """Raises NoSuchSilence."""
        names = {rule.document.name for rule in await self._visible(principal)}
        silence = await self._store.silence(silence_id)
        if not _may_silence(principal, silence.matchers, names):
            raise NoSuchSilence
        await self._store.end_silence(silence_id)

    # --- breakers -------------------------------------------------------------------------------------------------

    async def breakers(self, principal: Principal) -> dict[str, Any]:
        """BreakerList."""
        names = {rule.document.name for rule in await self._visible(principal)}
        shown = [each for each in await self._store.breakers() if each.rule in names]
        return {
            "breakers": [
                {
                    "rule": each.rule,
                    "channel": each.channel,
                    "state": each.state,
                    "since": _time(each.since),
                    "held": each.held,
                    "opened": each.opened,
                }
                for each in shown
            ]
        }

    async def reset(self, principal: Principal, rule: str, channel: str) -> None:
        """Close a breaker soon. Raises NoSuchRule."""
        await self._mine(principal, rule)
        if not any(each.rule == rule and each.channel == channel for each in await self._store.breakers()):
            raise NoSuchRule(f"nothing of rule {rule[:100]} went to a channel {channel[:64]} lately")
        await self._store.ask_reset(rule, channel, by=_who(principal))

    # --- who may what ---------------------------------------------------------------------------------------------

    async def _visible(self, principal: Principal) -> list[StoredRule]:
        scopes: dict[str, ServiceScope] = {}
        found = []
        for rule in await self._store.rules():
            if rule.owner not in scopes:
                scopes[rule.owner] = self._scope_of(rule.owner)
            if self._may(principal, rule, scopes[rule.owner]):
                found.append(rule)
        return found

    async def _mine(self, principal: Principal, name: str) -> StoredRule:
        rule = await self._store.rule(name)
        if not self._may(principal, rule, self._scope_of(rule.owner)):
            raise NoSuchRule(f"there is no rule {name[:100]!r}, or it is not yours")
        return rule

    @staticmethod
    def _may(principal: Principal, rule: StoredRule, scope: ServiceScope) -> bool:
        if rule.owner == principal.subject:
            return True
        reached = _reached(rule, scope)
        # A rule that sees nothing, or nothing any more, is not everybody's: then what it names counts.
        if reached.is_empty:
            reached = reach(rule.document.predicate)
        return principal.may_alert.everything if reached.is_empty else is_within(reached, principal.may_alert)

    async def _shown(self, principal: Principal, rule: str | None) -> Shown:
        rules = await self._visible(principal) if rule is None else [await self._mine(principal, rule)]
        reached = [_reached(each, self._scope_of(each.owner)) for each in rules]
        return Shown([each.document.name for each in rules], principal.may_alert, marks(reached))


def read_document(content: Any) -> RuleDocument:  # JSON
    """Raises RuleInvalid."""
    try:
        return RuleDocument.model_validate(content)
    except ValidationError as error:
        raise RuleInvalid([(".".join(map(str, place)), text) for place, text in explain(error)]) from error


def _reached(rule: StoredRule, scope: ServiceScope) -> Reach:
    """What the rule sees of its owner's scope."""
    return both(reach(rule.document.predicate), of_scope(scope))


def _check_reach(principal: Principal, document: RuleDocument) -> None:
    """A query that names services must name permitted ones; one that names none sees those that are."""
    reached = reach(document.predicate)
    if reached.everything:
        return
    if not is_within(reached, principal.may_alert):
        refused = sorted(name for name in reached.names if not principal.may_alert.permits(name))
        refused += [f"{prefix}*" for prefix in sorted(reached.prefixes)]
        raise Forbidden(
            f"you may not set alerts on all of the services that the query names: {', '.join(refused)[:300]}"
        )


def _check_changeable(rule: StoredRule) -> None:
    if rule.owner == FILE_OWNER:
        raise Forbidden(f"rule {rule.document.name} stands in a file: change it there")


def _may_silence(principal: Principal, matchers: tuple[Matcher, ...], names: set[str]) -> bool:
    if principal.may_alert.everything:
        return True
    return any(each.label == "rule" and each.op == "=" and each.value in names for each in matchers)


def _who(principal: Principal) -> str:
    return principal.name or principal.subject


def _rule_json(rule: StoredRule, figures: Mapping[str, Any]) -> dict[str, Any]:
    counted = figures.get("rules", {}).get(rule.document.name, {})
    return {
        "rule": rule.document.as_json(),
        "owner": rule.owner,
        "revision": rule.revision,
        "changed_at": _time(rule.changed_at),
        "changed_by": rule.changed_by,
        "problem": rule.problem,
        **{name: counted.get(name, 0) for name in ("groups", "firing", "late", "overflowed")},
    }


def _alert_json(alert: Mapping[str, Any], allowed: ServiceScope) -> dict[str, Any]:
    return {
        "id": alert["alert_id"],
        "rule": alert["rule"],
        "state": alert["state"],
        "severity": alert["severity"],
        "labels": alert["labels"],
        "started_at": time_text(alert["started_us"]),
        "ended_at": None if alert["ended_us"] is None else time_text(alert["ended_us"]),
        "value": alert["value"],
        "logs_in_window": alert["count"],
        "summary": alert["summary"],
        "reason": alert["reason"],
        "runbook": alert["runbook"],
        "logs": [
            {
                "timestamp": time_text(sample["timestamp_us"]),
                "id": sample["id"],
                "level": sample["level"],
                "service_name": sample["service_name"],
                "message": sample["message"],
            }
            for sample in alert["samples"]
            if allowed.permits(sample["service_name"])
        ],
    }


def _silence_json(silence: StoredSilence, now: datetime) -> dict[str, Any]:
    state = "ended" if silence.ends_at <= now else "active" if silence.starts_at <= now else "pending"
    return {
        "id": silence.silence_id,
        "state": state,
        "matchers": [{"label": each.label, "op": each.op, "value": each.value} for each in silence.matchers],
        "starts_at": _time(silence.starts_at),
        "ends_at": _time(silence.ends_at),
        "author": silence.author,
        "comment": silence.comment,
    }


def _time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
