"""A ticket opens one WebSocket, soon, with the credentials that it was asked for with."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from query.tail import tickets as module
from query.tail.tickets import SUBJECT_TICKETS_MAX, Tickets

ASKED = HTTPConnection(
    {
        "type": "http",
        "scheme": "https",
        "path": "/api/v1/tail/tickets",
        "headers": [(b"authorization", b"Bearer x")],
        "client": ("10.0.0.1", 5),
        "query_string": b"secret=1",
        "extensions": {"something": object()},
    }
)


def issued(tickets: Tickets, subject: str = "ann", now_s: float = 0.0) -> str:
    text = tickets.issue(subject, ASKED, now_s=now_s)
    assert text is not None
    return text


def test_a_ticket_is_good_once_and_keeps_who_asked() -> None:
    tickets = Tickets(lives_s=30.0)
    text = issued(tickets)
    assert len(text) >= 43
    found = tickets.redeem(text, now_s=1.0)
    assert found is not None
    assert found.headers["authorization"] == "Bearer x"
    assert found.client is not None
    assert found.client.host == "10.0.0.1"
    assert not found.query_params
    assert tickets.redeem(text, now_s=1.0) is None


def test_a_ticket_is_good_for_seconds() -> None:
    tickets = Tickets(lives_s=30.0)
    early, late = issued(tickets), issued(tickets, now_s=10.0)
    assert tickets.redeem(early, now_s=30.0) is None
    assert tickets.redeem(late, now_s=30.0) is not None
    assert tickets.redeem("another", now_s=30.0) is None
    assert tickets.redeem("\ud800", now_s=30.0) is None


def test_tickets_are_bounded_for_each_subject_and_in_all() -> None:
    tickets = Tickets(lives_s=30.0)
    for _ in range(SUBJECT_TICKETS_MAX):
        issued(tickets)
    assert tickets.issue("ann", ASKED, now_s=1.0) is None
    text = issued(tickets, "bob")
    assert tickets.redeem(text, now_s=1.0) is not None
    for _ in range(SUBJECT_TICKETS_MAX):
        issued(tickets, "bob")
    assert tickets.issue("bob", ASKED, now_s=1.0) is None
    issued(tickets, "ann", now_s=31.0)


def test_tickets_of_all_are_bounded() -> None:
    tickets = Tickets(lives_s=30.0)
    for number in range(module.TICKETS_MAX):
        issued(tickets, f"subject {number}")
    assert tickets.issue("one more", ASKED, now_s=1.0) is None
