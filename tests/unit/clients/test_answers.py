"""What answers mean for a batch, by answers that ingest itself writes, and by those of others."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logfeed_client.sending.answers import Reason, Refused, Taken, TooLarge, Trouble, Wait, judge
from logfeed_client.sending.batch import Batch

from access.errors import Forbidden, Unauthenticated
from ingest.errors import (
    BodyTooLarge,
    FieldError,
    InvalidFields,
    ItemError,
    KeyReused,
    MalformedBody,
    NothingAccepted,
    NotPermitted,
    RateLimited,
    UnsupportedBody,
)
from ingest.problems import problem_of
from ingest.receive import Received, batch_answer
from schemas.errors import LogfeedError, Overloaded, RecordTooLarge
from schemas.record import Log

LOGS = [Log(number, 0, 9, "shop", "m", None, {}) for number in range(3)]


def judged(error: LogfeedError) -> Taken | Wait | TooLarge | Refused:
    """The problem that ingest writes for it."""
    response = problem_of(error)
    return judge(response.status_code, response.headers, bytes(response.body), logs=3, now_s=0.0)


def item(code: str) -> ItemError:
    return ItemError(code, (FieldError(code, "is wrong"),))


def test_each_log_of_a_batch_that_was_taken_is_accounted_for() -> None:
    received = Received(
        kept=[*LOGS[:2]],
        dropped=[(LOGS[2], "quiet")],
        rejected=[(3, item("level")), (4, item("json")), (5, item("level"))],
    )
    answer = batch_answer(received, range(6), return_ids=False)
    found = judge(answer.status, {}, answer.body, logs=6, now_s=0.0)
    assert found == Taken(2, 1, 3, (Reason("level", "level: is wrong", 2), Reason("json", "json: is wrong", 1)))
    nothing = batch_answer(Received(dropped=[(log, "quiet") for log in LOGS]), range(3), return_ids=False)
    assert judge(nothing.status, {}, nothing.body, logs=3, now_s=0.0) == Taken(0, 3)


def test_logs_beyond_those_that_are_listed_are_counted() -> None:
    answer = batch_answer(Received(rejected=[(n, item("level")) for n in range(150)]), range(150), return_ids=False)
    found = judge(200, {}, answer.body, logs=150, now_s=0.0)
    assert isinstance(found, Taken)
    assert found.reasons == (Reason("level", "level: is wrong", 150),)


def test_a_batch_of_which_nothing_is_valid_is_done() -> None:
    found = judged(NothingAccepted([(n, item("level")) for n in range(3)]))
    assert found == Taken(0, rejected=3, reasons=(Reason("level", "level: is wrong", 3),))


@pytest.mark.parametrize(
    "error", [KeyReused(), MalformedBody("x"), UnsupportedBody("x"), InvalidFields([FieldError("x", "y")])]
)
def test_what_will_never_be_taken_is_refused(error: LogfeedError) -> None:
    assert isinstance(judged(error), Refused)


@pytest.mark.parametrize("error", [BodyTooLarge("x"), RecordTooLarge("x")])
def test_what_is_too_large_is_split(error: LogfeedError) -> None:
    assert isinstance(judged(error), TooLarge)
    assert isinstance(judge(413, {}, b"<html>nginx</html>", logs=3, now_s=0.0), TooLarge)


def test_what_may_pass_is_waited_for_as_long_as_the_server_says() -> None:
    limited = judged(RateLimited("x", retry_after_s=7))
    assert isinstance(limited, Wait)
    assert (limited.trouble, limited.asked_s) == (Trouble.BUSY, 7.0)
    overloaded = judged(Overloaded("x", retry_after_s=3))
    assert isinstance(overloaded, Wait)
    assert (overloaded.trouble, overloaded.asked_s) == (Trouble.AWAY, 3.0)
    broken = problem_of(RuntimeError())
    assert judge(500, {}, bytes(broken.body), logs=3, now_s=0.0) == Wait(
        Trouble.AWAY, "HTTP 500: The request failed for a reason that is not the caller's. It may have been stored."
    )


@pytest.mark.parametrize("error", [Unauthenticated("x"), Forbidden("x"), NotPermitted("x")])
def test_keys_may_be_renewed_so_their_logs_wait(error: LogfeedError) -> None:
    found = judged(error)
    assert isinstance(found, Wait)
    assert found.trouble is Trouble.CREDENTIALS


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>log in</html>"),
        (201, b"{}"),
        (200, b"[]"),
        (200, b'{"accepted":1}'),
        (200, b'{"accepted":true,"rejected_count":0,"filtered":{}}'),
        (200, b'{"accepted":-1,"rejected_count":0,"filtered":{}}'),
        (204, b""),
        (302, b""),
        (400, b"Bad Request"),
        (404, b"not here"),
        (405, b""),
        (415, b"nginx"),
        (422, b"{}"),
    ],
)
def test_an_answer_of_somebody_else_says_nothing_about_logs(status: int, body: bytes) -> None:
    found = judge(status, {}, body, logs=3, now_s=0.0)
    assert isinstance(found, Wait)
    assert found.trouble is Trouble.FOREIGN


@given(st.integers(100, 599), st.binary(max_size=100), st.text(max_size=10))
@settings(max_examples=40, deadline=None)
def test_no_answer_is_taken_for_a_success_but_that_of_a_success(status: int, body: bytes, retry_after: str) -> None:
    found = judge(status, {"Retry-After": retry_after}, body, logs=3, now_s=0.0)
    assert not isinstance(found, Taken) or (status in (200, 201) and b"accepted" in body)


def test_halves_are_always_the_same_with_the_same_keys() -> None:
    batch = Batch.of([b"1\n", b"2\n", b"3\n"])
    halves = batch.halves()
    assert halves is not None
    assert halves == batch.halves()
    assert [(half.key, half.body, half.logs) for half in halves] == [
        (f"{batch.key}.0", b"1\n", 1),
        (f"{batch.key}.1", b"2\n3\n", 2),
    ]
    assert halves[0].halves() is None
