"""Rules, silences and alerts over HTTP: who may see and change what (INV-5), and what is refused."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from alerts.evaluate import Sample
from alerts.messages import encode, message_of
from alerts.notify import Alert, Notification
from alerts.reach import TEXTS_MAX, Reach, texts
from alerts.rule_store import RuleStore
from alerts.rules import RuleDocument
from alerts.state import alert_json
from cli import openapi
from tests.access_site import PASSWORD, Site, running

COUNT: dict[str, Any] = {"count": {"at_least": 3}}
BASE = "/api/v1/alerts"


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url, audit=False) as site:
        yield site


async def create(site: Site, token: str, name: str, query: str = "", **fields: Any) -> httpx.Response:
    return await site.ask(
        token, "POST", f"{BASE}/rules", json={"name": name, "query": query, "condition": COUNT, **fields}
    )


async def rules_of(site: Site, token: str) -> set[str]:
    answer = await site.ask(token, "GET", f"{BASE}/rules")
    assert answer.status_code == 200
    return {each["rule"]["name"] for each in answer.json()["rules"]}


def soon(hours: float = 1) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


async def test_a_rule_is_made_seen_changed_and_removed(site: Site) -> None:
    token = (await site.key("alert:pay/*")).text
    made = await create(site, token, "errors", "service:pay/a level>=error", window="5m", labels={"team": "x"})
    assert made.status_code == 201
    assert made.json()["rule"] == {
        "name": "errors",
        "query": "service:pay/a level>=error",
        "window": "5m",
        "labels": {"team": "x"},
        "condition": COUNT,
    }
    assert (made.json()["revision"], made.json()["owner"][:4]) == (1, "key:")
    assert (await create(site, token, "errors")).status_code == 409
    body = {"name": "errors", "condition": {"silence": {}}}
    changed = await site.ask(token, "PUT", f"{BASE}/rules/errors", json=body)
    assert (changed.status_code, changed.json()["revision"]) == (200, 2)
    assert (await site.ask(token, "PUT", f"{BASE}/rules/errors", json=body | {"name": "x"})).status_code == 422
    assert (await site.ask(token, "PUT", f"{BASE}/rules/gone", json=body | {"name": "gone"})).status_code == 404
    assert await rules_of(site, token) == {"errors"}
    assert (await site.ask(token, "DELETE", f"{BASE}/rules/errors")).status_code == 204
    assert (await site.ask(token, "GET", f"{BASE}/rules/errors")).status_code == 404


async def test_a_query_that_names_services_of_others_is_refused_and_one_without_sees_the_owners(site: Site) -> None:
    token = (await site.key("alert:pay/*", "read:*")).text
    for query in ("service:shop", "service:pay/a OR service:shop", "service:p*", "service:pay/a OR (service:shop x)"):
        answer = await create(site, token, "r", query)
        assert answer.status_code == 403, query
        assert "you may not set alerts on all of the services" in answer.json()["detail"]
    for number, query in enumerate(("", "error", "NOT service:shop", "service:pay/* x", "service:pay/a service:shop")):
        assert (await create(site, token, f"r{number}", query)).status_code == 201, query


async def test_rules_are_seen_by_who_may_set_alerts_on_all_they_reach(site: Site) -> None:
    admin, pay, shop = [(await site.key(grant)).text for grant in ("admin:*", "alert:pay/*", "alert:shop")]
    await create(site, admin, "all")
    await create(site, admin, "pay-a", "service:pay/a")
    await create(site, pay, "of-pay", "timeout")
    await create(site, shop, "of-shop")
    assert await rules_of(site, admin) == {"all", "pay-a", "of-pay", "of-shop"}
    assert await rules_of(site, pay) == {"pay-a", "of-pay"}
    assert await rules_of(site, shop) == {"of-shop"}
    for name in ("all", "pay-a", "of-pay"):
        for method, body in (("GET", None), ("DELETE", None), ("PUT", {"name": name, "condition": COUNT})):
            answer = await site.ask(shop, method, f"{BASE}/rules/{name}", json=body)
            assert answer.status_code == 404, (method, name)
            assert name in answer.json()["detail"]
    # Whoever changes a rule answers for it from then on: it sees what they may see.
    changed = await site.ask(pay, "PUT", f"{BASE}/rules/pay-a", json={"name": "pay-a", "condition": COUNT})
    assert changed.status_code == 200
    mine = (await site.ask(pay, "GET", f"{BASE}/rules/of-pay")).json()["owner"]
    assert changed.json()["owner"] == mine


async def test_a_rule_whose_owner_is_gone_is_nobodys_but_who_may_all_that_it_names(site: Site) -> None:
    key = await site.key("alert:pay/*")
    await create(site, key.text, "orphan")
    await create(site, key.text, "named", "service:pay/a")
    other, admin = (await site.key("alert:pay/*")).text, (await site.key("alert:*")).text
    assert await rules_of(site, other) == {"orphan", "named"}
    await site.accounts.revoke_key(key.prefix)
    await site.access.directory.refresh()
    assert await rules_of(site, other) == {"named"}
    assert await rules_of(site, admin) == {"orphan", "named"}


async def test_a_rule_that_sees_nothing_any_more_is_not_everybodys(site: Site) -> None:
    await site.user("ann", "alert:*")
    ann = (await site.ask(None, "POST", "/api/v1/auth/login", json={"name": "ann", "password": PASSWORD})).json()
    await create(site, ann["access_token"], "pay-errors", "service:pay/a card")
    await create(site, ann["access_token"], "never", "service:pay/a service:pay/b")
    pay, shop, admin = [(await site.key(grant)).text for grant in ("alert:pay/*", "alert:shop", "alert:*")]
    assert await rules_of(site, admin) == {"pay-errors", "never"}
    assert (await rules_of(site, pay), await rules_of(site, shop)) == ({"pay-errors"}, set())
    await site.accounts.change_user("ann", grants=["alert:mail"])
    await site.access.directory.refresh()
    assert (await rules_of(site, pay), await rules_of(site, shop)) == ({"pay-errors"}, set())
    for method, body in (("GET", None), ("DELETE", None), ("PUT", {"name": "pay-errors", "condition": COUNT})):
        assert (await site.ask(shop, method, f"{BASE}/rules/pay-errors", json=body)).status_code == 404
    hush = {
        "matchers": [{"label": "rule", "op": "=", "value": "pay-errors"}],
        "ends_at": soon(),
        "comment": "quiet",
    }
    assert (await site.ask(shop, "POST", f"{BASE}/silences", json=hush)).status_code == 403
    assert await rules_of(site, admin) == {"pay-errors", "never"}


async def test_rules_of_files_are_seen_and_not_changed(site: Site) -> None:
    document = RuleDocument.model_validate({"name": "of-file", "condition": COUNT})
    assert await RuleStore(site.database).sync_files([document]) == []
    admin = (await site.key("admin:*")).text
    assert (await site.ask(admin, "GET", f"{BASE}/rules/of-file")).json()["owner"] == "file"
    for method in ("PUT", "DELETE"):
        answer = await site.ask(admin, method, f"{BASE}/rules/of-file", json={"name": "of-file", "condition": COUNT})
        assert (answer.status_code, answer.json()["detail"]) == (403, "rule of-file stands in a file: change it there")
    await create(site, admin, "theirs")
    taken = RuleDocument.model_validate({"name": "theirs", "condition": COUNT})
    assert len(await RuleStore(site.database).sync_files([taken])) == 1, "a name that somebody has is theirs"
    assert await rules_of(site, admin) == {"theirs"}


@pytest.mark.parametrize(
    ("body", "field", "expected"),
    [
        ({"name": "r"}, "condition", "Field required"),
        (
            {"name": "r", "condition": {"count": {"at_least": 0}}},
            "condition.count.at_least",
            "greater than or equal to 1",
        ),
        ({"name": "r", "condition": COUNT, "windw": "5m"}, "windw", "did you mean window?"),
        ({"name": "r", "condition": COUNT, "query": "levle:error ("}, "query", "is not in the query language"),
        ({"name": "r\u0000", "condition": COUNT}, "name", "match pattern"),
        ([], "", "valid dictionary"),
    ],
)
async def test_what_is_wrong_with_a_rule_is_told_by_field(site: Site, body: Any, field: str, expected: str) -> None:
    token = (await site.key("alert:*")).text
    answer = await site.ask(token, "POST", f"{BASE}/rules", json=body)
    assert answer.status_code == 422
    assert any(each["field"] == field and expected in each["message"] for each in answer.json()["errors"]), answer.text


async def test_bodies_are_json_of_bounded_size_and_parameters_are_known(site: Site) -> None:
    token = (await site.key("alert:*")).text
    form = await site.ask(token, "POST", f"{BASE}/rules", content=b"{}", headers={"Content-Type": "text/plain"})
    large = await site.ask(
        token, "POST", f"{BASE}/rules", content=b" " * 300_000, headers={"Content-Type": "application/json"}
    )
    bad = await site.ask(token, "POST", f"{BASE}/rules", content=b"{", headers={"Content-Type": "application/json"})
    assert [answer.status_code for answer in (form, large, bad)] == [422, 422, 422]
    for path in (
        "?limit=0",
        "?limit=501",
        "?limit=x",
        "?state=open",
        "?stat=firing",
        "/rules?x=1",
        "/notifications?state=firing",
    ):
        assert (await site.ask(token, "GET", BASE + path)).status_code == 422, path
    for path in ("rule", "channel", "before"):
        answer = await site.ask(token, "GET", f"{BASE}/notifications?{path}=%00")
        assert answer.status_code in (200, 404), f"what no name has is found nowhere: {path}"
    assert (await site.ask(token, "GET", f"{BASE}?rule=%00")).status_code == 404
    for method, path in (("GET", "rules"), ("DELETE", "rules"), ("DELETE", "silences")):
        assert (await site.ask(token, method, f"{BASE}/{path}/a%00b")).status_code == 404
    reset = {"rule": "a\0b", "channel": "c\0d"}
    assert (await site.ask(token, "POST", f"{BASE}/breakers/reset", json=reset)).status_code in (404, 422)


async def test_silences_name_a_rule_of_ones_own_or_take_the_right_to_all(site: Site) -> None:
    admin, pay, shop = [(await site.key(grant)).text for grant in ("alert:*", "alert:pay/*", "alert:shop")]
    await create(site, pay, "of-pay")

    async def silence(token: str, *matchers: dict[str, str], **fields: Any) -> httpx.Response:
        body = {"matchers": matchers, "ends_at": soon(), "comment": "known", **fields}
        return await site.ask(token, "POST", f"{BASE}/silences", json=body)

    of_pay = {"label": "rule", "op": "=", "value": "of-pay"}
    broad = {"label": "severity", "op": "=~", "value": ".*"}
    assert (await silence(pay, broad)).status_code == 403
    assert (await silence(shop, of_pay)).status_code == 403
    assert (await silence(pay, of_pay | {"op": "=~"})).status_code == 403
    made = await silence(pay, of_pay, broad)
    assert (made.status_code, made.json()["state"]) == (201, "active")
    everything = await silence(admin, broad, starts_at=soon(0.5))
    assert everything.json()["state"] == "pending"
    listed = {
        token: (await site.ask(token, "GET", f"{BASE}/silences")).json()["silences"] for token in (admin, pay, shop)
    }
    assert [len(listed[token]) for token in (admin, pay, shop)] == [2, 1, 0]
    assert (await site.ask(shop, "DELETE", f"{BASE}/silences/{made.json()['id']}")).status_code == 404
    assert (await site.ask(pay, "DELETE", f"{BASE}/silences/{everything.json()['id']}")).status_code == 404
    assert (await site.ask(pay, "DELETE", f"{BASE}/silences/{made.json()['id']}")).status_code == 204
    assert (await site.ask(pay, "GET", f"{BASE}/silences")).json()["silences"][0]["state"] == "ended"
    wrongs: list[dict[str, Any]] = [
        {"ends_at": soon(-1)},
        {"ends_at": "2026-01-01"},
        {"ends_at": soon(24 * 400)},
        {"comment": ""},
        {"matchers": []},
        {"matchers": [{"label": "a", "op": "=~", "value": "("}]},
    ]
    for wrong in wrongs:
        assert (await silence(admin, broad, **wrong)).status_code == 422, wrong


async def test_a_rule_that_is_removed_leaves_no_silence_to_whoever_takes_its_name(site: Site) -> None:
    pay, shop = [(await site.key(grant)).text for grant in ("alert:pay/*", "alert:shop")]
    await create(site, shop, "errors")
    body = {"matchers": [{"label": "rule", "value": "errors"}], "ends_at": soon(24 * 300), "comment": "x"}
    assert (await site.ask(shop, "POST", f"{BASE}/silences", json=body)).status_code == 201
    assert (await site.ask(shop, "DELETE", f"{BASE}/rules/errors")).status_code == 204
    await create(site, pay, "errors")
    assert [each["state"] for each in (await site.ask(pay, "GET", f"{BASE}/silences")).json()["silences"]] == ["ended"]


async def test_silences_of_one_leave_room_to_others(site: Site) -> None:
    pay, shop = [(await site.key(grant)).text for grant in ("alert:pay/*", "alert:shop")]
    await create(site, pay, "of-pay")
    await create(site, shop, "of-shop")

    async def silence(token: str, rule: str, *patterns: str) -> int:
        matchers = [{"label": "rule", "value": rule}, *({"label": "a", "op": "=~", "value": each} for each in patterns)]
        body = {"matchers": matchers, "ends_at": soon(), "comment": "x"}
        return (await site.ask(token, "POST", f"{BASE}/silences", json=body)).status_code

    many = [f"x{number}.*" for number in range(19)]
    made = [await silence(shop, "of-shop", *many) for _ in range(14)]
    assert made == [201] * 13 + [409], "500 patterns, half of them one's own at most"
    assert await silence(pay, "of-pay", *many) == 201
    await site.database.execute(
        "INSERT INTO alert_silences (silence_id, matchers, starts_at, ends_at, author, subject, comment)"
        " SELECT 's' || n, '[]', now(), now() + interval '1 h', 'a', subject, ''"
        " FROM generate_series(1, 490) AS n,"
        " (SELECT DISTINCT subject FROM alert_silences WHERE matchers @> %s::jsonb) AS theirs",
        ('[{"value": "of-shop"}]',),
    )
    assert await silence(shop, "of-shop") == 409
    await site.database.execute("UPDATE alert_silences SET subject = 'user:9' WHERE left(silence_id, 1) = 's'")
    assert await silence(shop, "of-shop") == 201


async def put_alert(site: Site, rule: str, services: list[str], *, samples: tuple[str, ...] = ()) -> None:
    """An alert, and a message about it, as the evaluator stores them. services: whose logs they may tell of. samples: services
    of its lines."""
    alert = Alert(
        alert_id=secrets.token_hex(16),
        rule=rule,
        labels={"rule": rule, "severity": "warning", "pattern": "told"},
        severity="warning",
        state="firing",
        started_us=1_767_225_600_000_000,
        ended_us=None,
        value=3.0,
        count=3,
        summary="",
        runbook=None,
        samples=[Sample(1, 2, "INFO", service, f"said by {service}") for service in samples],
        services=services,
    )
    await site.database.execute(
        "INSERT INTO alerts (alert_id, rule, state, severity, labels, started_at, alert)"
        " VALUES (%s, %s, 'firing', 'warning', '{}', now(), %s::jsonb)",
        (alert.alert_id, alert.rule, msgspec.json.encode(alert_json(alert)).decode()),
    )
    message = Notification("n" + alert.alert_id, "alerts", rule, "ops", "warning", 1, 1, 0, [alert], services=services)
    await site.database.execute(
        "INSERT INTO alert_outbox (notification_id, rule, channel, body) VALUES (%s, %s, 'ops', %s::jsonb)",
        (message.notification_id, rule, encode(message_of(message, None, public_url=None)).decode()),
    )


async def test_what_a_rule_told_is_shown_to_who_may_see_what_it_saw_then_whoever_has_the_name_now(site: Site) -> None:
    audit, admin, pay, shop = [
        (await site.key(*grants)).text
        for grants in (("alert:*", "admin:logfeed/audit"), ("alert:*",), ("alert:pay/*",), ("alert:shop",))
    ]
    await put_alert(site, "errors", ["pay/*"])
    await put_alert(site, "errors", ["pay/a", "shop"])
    await put_alert(site, "errors", ["*"])
    await put_alert(site, "errors", ["*", "logfeed/audit"])
    await put_alert(site, "errors", ["shop"])

    async def seen(token: str) -> list[int]:
        found = [(await site.ask(token, "GET", f"{BASE}{path}?rule=errors")).json() for path in ("", "/notifications")]
        return [len(found[0]["alerts"]), len(found[1]["notifications"])]

    assert (await create(site, shop, "errors")).status_code == 201, "the name is free, what was told under it is there"
    assert await seen(shop) == [1, 1]
    assert await seen(admin) == [4, 4]
    assert await seen(audit) == [5, 5]
    assert (await site.ask(shop, "DELETE", f"{BASE}/rules/errors")).status_code == 204
    assert (await create(site, pay, "errors")).status_code == 201
    assert await seen(pay) == [1, 1]


async def test_a_message_of_others_is_no_place_to_go_on_from(site: Site) -> None:
    shop = (await site.key("alert:shop")).text
    assert (await create(site, shop, "mine")).status_code == 201
    for rule, services in (("mine", ["shop"]), ("theirs", ["pay/*"]), ("mine", ["shop"])):
        await put_alert(site, rule, services)
    rows = await site.database.fetch_all("SELECT notification_id, rule FROM alert_outbox ORDER BY created_at")
    (first, _), (others, theirs), (last, _) = rows
    assert theirs == "theirs"

    async def behind(message_id: str) -> list[str]:
        found = await site.ask(shop, "GET", f"{BASE}/notifications?before={message_id}")
        return [each["id"] for each in found.json()["notifications"]]

    assert await behind(last) == [first]
    assert await behind(others) == await behind("0" * 32) == [], "whether and when somebody was told something"


async def test_a_right_of_many_services_sees_what_its_rule_tells(site: Site) -> None:
    many = [f"service-{number}" for number in range(TEXTS_MAX + 1)]
    token = (await site.key(*(f"alert:{name}" for name in many))).text
    assert (await create(site, token, "wide")).status_code == 201
    await put_alert(site, "wide", texts(Reach(names=frozenset(many))))
    await put_alert(site, "wide", texts(Reach(names=frozenset([*many[1:], "other"]))))
    assert len((await site.ask(token, "GET", BASE)).json()["alerts"]) == 1


async def test_alerts_show_lines_only_of_services_that_may_be_seen(site: Site) -> None:
    admin, pay, shop = [(await site.key(grant)).text for grant in ("alert:*", "alert:pay/*", "alert:shop")]
    await create(site, pay, "of-pay")
    await put_alert(site, "of-pay", ["pay/*"], samples=("pay/a", "secret"))
    for token, expected in ((admin, ["pay/a", "secret"]), (pay, ["pay/a"])):
        (shown,) = (await site.ask(token, "GET", BASE)).json()["alerts"]
        assert [log["service_name"] for log in shown["logs"]] == expected
    answer = await site.ask(shop, "GET", BASE)
    assert answer.json()["alerts"] == []
    assert answer.json()["status"] == {"leader": None, "saved_at": None, "watermark": None, "gaps": 0}
    documented = openapi.document()["paths"]
    for path in (BASE, f"{BASE}/notifications"):
        assert (await site.ask(shop, "GET", f"{path}?rule=of-pay")).status_code == 404
        assert "404" in documented[path]["get"]["responses"], path


async def test_hosts_and_what_channels_answer_are_for_who_may_set_alerts_on_all_services(site: Site) -> None:
    admin, pay = [(await site.key(grant)).text for grant in ("alert:*", "alert:pay/*")]
    await create(site, pay, "of-pay")
    await put_alert(site, "of-pay", ["pay/*"])
    await site.database.execute("UPDATE alert_outbox SET state = 'dead', problem = '10.1.2.3 is not a public address'")
    await site.database.execute(
        "INSERT INTO leases (name, owner, epoch, lease_until) VALUES ('alerts', 'host-7:8080', 1, now() + interval '1 h')"
    )
    for token, shows in ((admin, True), (pay, False)):
        (message,) = (await site.ask(token, "GET", f"{BASE}/notifications")).json()["notifications"]
        status = (await site.ask(token, "GET", BASE)).json()["status"]
        assert message["state"] == "dead"
        assert ("10.1.2.3" in message["problem"], "host-7" in status["leader"]) == (shows, shows)


async def test_a_breaker_of_others_is_neither_seen_nor_reset(site: Site) -> None:
    pay, shop = [(await site.key(grant)).text for grant in ("alert:pay/*", "alert:shop")]
    await create(site, pay, "of-pay")
    await site.database.execute(
        "INSERT INTO alert_breakers (rule, channel, state, since, held, opened) VALUES ('of-pay', 'ops', 'open', now(), 3, 1)"
    )
    body = {"rule": "of-pay", "channel": "ops"}
    assert (await site.ask(pay, "GET", f"{BASE}/breakers")).json()["breakers"][0]["held"] == 3
    assert (await site.ask(shop, "GET", f"{BASE}/breakers")).json()["breakers"] == []
    assert (await site.ask(shop, "POST", f"{BASE}/breakers/reset", json=body)).status_code == 404
    assert (await site.ask(pay, "POST", f"{BASE}/breakers/reset", json=body | {"channel": "x"})).status_code == 404
    assert (await site.ask(pay, "POST", f"{BASE}/breakers/reset", json=body)).status_code == 204
    assert await site.database.fetch_all("SELECT rule, channel FROM alert_resets") == [("of-pay", "ops")]


async def test_who_asks_too_much_at_once_is_told_so_and_others_are_answered(native_url: str) -> None:
    limits = {"scans_per_subject_max": 1, "scans_waiting_per_subject_max": 1}
    async with running(native_url, audit=False, query=limits | {"scan_wait_ms": 30_000}) as site:
        greedy, other = [(await site.key("alert:*", "read:*")).text for _ in range(2)]
        async with site.database.transaction() as connection:
            await connection.execute("LOCK TABLE alert_rules")
            asked = [asyncio.create_task(site.ask(greedy, "GET", f"{BASE}/rules")) for _ in range(3)]
            (refused,), waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            answer = refused.result()
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["type"] == "urn:logfeed:problem:too-many-questions"
            assert (await site.ask(other, "GET", "/api/v1/services")).status_code == 200
        assert [(await each).status_code for each in waiting] == [200, 200]


async def test_a_rule_is_tried_on_what_one_may_read_and_set_alerts_on(site: Site) -> None:
    await site.put([{"service_name": name} for name in ["pay/a", "pay/b", "shop"] * 2])
    document = {"name": "tried", "window": "1m", "condition": {"count": {"at_least": 1}}, "group_by": ["service"]}
    seen = {}
    grants = {"all": ("alert:*", "read:*"), "some": ("alert:pay/*", "read:shop", "read:pay/a"), "blind": ("alert:*",)}
    for name, given in grants.items():
        token = (await site.key(*given)).text
        answer = await site.ask(token, "POST", f"{BASE}/trials", json={"rule": document, "start_time": "-1h"})
        if name == "blind":
            assert answer.status_code == 403
            continue
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["is_complete"]
        seen[name] = {each["labels"]["service"] for each in found["decisions"] if each["state"] == "firing"}
        assert found["logs"] == 2 * len(seen[name])
        assert await rules_of(site, token) == set(), "nothing is kept"
    assert seen == {"all": {"pay/a", "pay/b", "shop"}, "some": {"pay/a"}}


async def test_a_trial_that_cannot_be_says_why(site: Site) -> None:
    token = (await site.key("alert:pay/*", "read:*")).text
    rule = {"name": "tried", "condition": COUNT}
    for body, status, word in (
        ({"rule": rule, "start_time": "now", "end_time": "-1h"}, 422, "start_time"),
        ({"rule": rule, "start_time": "soon"}, 422, "start_time"),
        ({"rule": {**rule, "every": "7s"}}, 422, "window"),
        ({"rule": {**rule, "query": "level:fetal"}}, 422, "query"),
        ({}, 422, "rule"),
        ({"rule": {**rule, "query": "service:shop"}}, 403, "shop"),
    ):
        answer = await site.ask(token, "POST", f"{BASE}/trials", json=body)
        assert answer.status_code == status, answer.text
        assert word in answer.text
