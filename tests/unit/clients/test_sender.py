"""A sender under everything a network does to it: what was taken is sent once and in order, what is lost is told and
counted."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from logfeed_client import Client, Sender, SenderLimits, notes
from logfeed_client.sending import batch as batch_module
from logfeed_client.sending.answers import Trouble
from logfeed_client.waiting import ASKED_S_MAX, PAUSE_S_MAX, pause_s, retry_after_s

from tests.unit.clients.scripted_server import Answer, Request, ScriptedServer, problem, scripted, take_all

DEADLINE_S = 30.0
NOBODY = "http://127.0.0.1:9"
"""Where nobody listens."""
QUICK = SenderLimits(linger_s=0.01)


def line(number: int | str) -> bytes:
    return json.dumps({"service_name": "shop", "message": str(number)}).encode() + b"\n"


def until(condition: Callable[[], bool], what: str) -> None:
    ends_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends_s, what
        time.sleep(0.005)


@contextmanager
def sending(url: str, **options: Any) -> Iterator[Sender]:
    sender = Sender(url, **{"service_name": "shop", "limits": QUICK, **options})
    try:
        yield sender
    finally:
        sender.close(0.0)


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told on stderr."""
    found: list[str] = []
    monkeypatch.setattr(notes, "say", found.append)
    return found


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that nobody asked for are short."""
    monkeypatch.setattr("logfeed_client.waiting.PAUSE_S_MIN", 0.01)
    monkeypatch.setattr("logfeed_client.waiting.PAUSE_S_MAX", 0.05)


def numbers(server: ScriptedServer) -> list[int]:
    return [int(message) for message in server.messages if message.isdecimal()]


def test_logs_are_sent_in_order_in_batches_under_keys_of_their_own() -> None:
    with scripted() as server, sending(server.url, api_key="lf_key", limits=SenderLimits(batch_logs=100)) as sender:
        for number in range(950):
            assert sender.put(line(number))
        assert sender.flush(DEADLINE_S)
        assert numbers(server) == list(range(950))
        assert max(len(request.lines) for request in server.requests) == 100
        assert len({request.key for request in server.requests}) == len(server.requests)
        assert {request.authorization for request in server.requests} == {"Bearer lf_key"}
        assert {request.encoding for request in server.requests if len(request.lines) > 50} == {"zstd"}
        stats = sender.stats()
        assert (stats.taken, stats.accepted, stats.queued, stats.dropped, stats.trouble) == (950, 950, 0, {}, None)


def test_without_the_package_zstandard_batches_are_gzip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert batch_module.compression()[0] == "gzip"
    with scripted() as server, sending(server.url) as sender:
        sender.put(line("x" * 1_000))
        assert sender.flush(DEADLINE_S)
        assert [request.encoding for request in server.requests] == ["gzip"]
        assert server.messages == ["x" * 1_000]


@pytest.mark.parametrize("has_spool", [False, True])
def test_the_same_logs_are_sent_again_under_the_same_key_until_they_are_answered_for(
    tmp_path: Path, has_spool: bool, told: list[str]
) -> None:
    """Answers are lost after the logs were stored: each is there once all the same."""
    lost = 0

    def script(request: Request) -> Answer:
        nonlocal lost
        if lost < 6 and len(server.requests) % 2:
            lost += 1
            server.stored.setdefault(request.key, request.lines)
            return Answer(503, b"the answer was lost")
        return Answer()

    spool = tmp_path / "spool" if has_spool else None
    with scripted(script) as server, sending(server.url, spool_dir=spool) as sender:
        for number in range(3_000):
            sender.put(line(number))
            if number % 500 == 0:
                time.sleep(0.01)
        until(lambda: sender.stats().accepted >= 3_000, "everything is sent")
        assert numbers(server) == list(range(3_000))
        bodies = {request.key: request.lines for request in server.requests}
        assert all(bodies[request.key] == request.lines for request in server.requests)
        assert sender.stats().retries == lost
        assert sender.stats().spooled == 0
    assert [text for text in told if "logs wait" in text], "once, not with each attempt"
    assert len([text for text in told if "logs wait" in text]) == 1


def test_the_server_says_how_long_it_wants_to_be_left_alone() -> None:
    times: list[float] = []

    def script(_: Request) -> Answer:
        times.append(time.monotonic())
        return Answer(429, b"{}", {"Retry-After": "1"}) if len(times) == 1 else Answer()

    with scripted(script) as server, sending(server.url) as sender:
        sender.put(line(1))
        until(lambda: sender.stats().trouble is Trouble.BUSY, "it waits")
        sender.put(line(2))
        assert sender.flush(DEADLINE_S)
        assert numbers(server) == [1, 2]
    assert times[1] - times[0] >= 1.0, "no sooner than it says, however many logs come"


def test_what_does_not_fit_is_dropped_counted_told_and_reported(told: list[str]) -> None:
    allowed = threading.Event()

    def script(_: Request) -> Answer:
        return Answer() if allowed.is_set() else problem(503, "unavailable")

    limits = SenderLimits(linger_s=0.01, batch_logs=10, queue_logs=50)
    with scripted(script) as server, sending(server.url, limits=limits) as sender:
        put = [sender.put(line(number)) for number in range(200)]
        kept = [number for number, is_kept in enumerate(put) if is_kept]
        assert 50 <= len(kept) < 200
        assert sender.stats().dropped == {"queue_full": 200 - len(kept)}
        allowed.set()
        until(lambda: len(server.messages) > len(kept), "what was kept is sent, and what was not is reported")
        assert numbers(server) == kept
        (report,) = [line for lines in server.stored.values() for line in lines if not line["message"].isdecimal()]
        assert report["level"] == "WARN"
        assert report["metadata"]["dropped"] == {"queue_full": 200 - len(kept)}
        assert report["service_name"] == "shop"
    assert len([text for text in told if "queue is full" in text]) == 1


def test_rejected_logs_are_counted_told_once_for_each_reason_and_not_sent_again(told: list[str]) -> None:
    def script(request: Request) -> Answer:
        rejected = [{"index": 0, "code": "level", "error": "level: expected a level"}]
        taken = {"accepted": len(request.lines) - 1, "filtered": {}, "rejected_count": 1, "rejected": rejected}
        if len(request.lines) == 1:
            return problem(422, "nothing-accepted", rejected_count=1, rejected=rejected)
        return Answer(201, json.dumps(taken).encode())

    with scripted(script) as server, sending(server.url) as sender:
        for number in range(3):
            sender.put(line(number))
            assert sender.flush(DEADLINE_S)
        for number in range(10):
            sender.put(line(number))
        assert sender.flush(DEADLINE_S)
        stats = sender.stats()
        assert stats.rejected["level"] + stats.accepted == 13
        assert sum(len(request.lines) for request in server.requests) == 13
    assert told == ["the server rejects logs: level: expected a level"]


@pytest.mark.parametrize("has_spool", [False, True])
def test_what_is_too_large_is_split_down_to_the_log_that_is(tmp_path: Path, has_spool: bool, told: list[str]) -> None:
    def script(request: Request) -> Answer:
        is_refused = len(request.lines) > 3 or any(line["message"] == "7" for line in request.lines)
        return Answer(413, b"<html>too large</html>") if is_refused else Answer()

    limits = SenderLimits(linger_s=3_600)
    spool = tmp_path / "spool" if has_spool else None
    with scripted(lambda _: problem(503, "unavailable")) as server:
        with sending(server.url, limits=limits, spool_dir=spool) as sender:
            for number in range(20):
                sender.put(line(number))
            sender.flush(0.0)
            until(lambda: sender.stats().retries > 0, "it was tried once")
            if has_spool:
                until(lambda: sender.stats().spooled == 1, "it is on disk")
            server.script = script
            until(lambda: sender.stats().accepted == 19, "the others are sent")
            until(lambda: sender.stats().dropped == {"too_large": 1}, "it is counted")
            assert numbers(server) == [number for number in range(20) if number != 7]
    assert any("too large" in text for text in told)


def test_a_key_that_is_renewed_sends_what_waited(tmp_path: Path, told: list[str]) -> None:
    def script(request: Request) -> Answer:
        return Answer() if request.authorization == "Bearer new" else problem(401, "unauthenticated")

    key = tmp_path / "key"
    key.write_text("old")
    with scripted(script) as server:
        with sending(server.url, api_key=key.read_text, spool_dir=tmp_path / "spool") as sender:
            for number in range(5):
                sender.put(line(number))
            until(lambda: sender.stats().trouble is Trouble.CREDENTIALS, "it is refused")
            assert sender.flush(DEADLINE_S), "on disk"
            key.write_text("new")
            until(lambda: sender.stats().accepted == 5, "it is sent")
            assert numbers(server) == list(range(5))
    assert [text for text in told if "HTTP 401" in text]
    assert [text for text in told if "takes logs again" in text]


def test_another_program_at_the_address_is_no_server_that_stored_anything(told: list[str]) -> None:
    with scripted(lambda _: Answer(200, b"<html>log in</html>")) as server, sending(server.url) as sender:
        sender.put(line(1))
        until(lambda: sender.stats().retries >= 2, "it is tried again")
        assert sender.stats().trouble is Trouble.FOREIGN
        server.script = take_all
        assert sender.flush(DEADLINE_S)
        assert numbers(server) == [1]


def test_what_is_refused_for_good_is_dropped_and_told(told: list[str]) -> None:
    with scripted(lambda _: problem(400, "malformed-body")) as server, sending(server.url) as sender:
        sender.put(line(1))
        assert sender.flush(DEADLINE_S)
        until(lambda: len(server.requests) == 2, "the second one tells of the first, and is refused too")
        sender.close(DEADLINE_S)
        assert sender.stats().dropped == {"refused": 1}, "what tells of lost logs is no log of the program"
        assert len(server.requests) == 2, "and is not told of in turn"
    assert any("for good" in text for text in told)


# --- the end


def test_closing_sends_what_waits_without_lingering() -> None:
    with scripted() as server, sending(server.url, limits=SenderLimits(linger_s=3_600)) as sender:
        for number in range(2_500):
            sender.put(line(number))
        sender.close(DEADLINE_S)
        assert numbers(server) == list(range(2_500))
        assert not sender.put(line(0))
        assert sender.stats().dropped == {"closed": 1}
        sender.close()
        assert sender.flush(0.0)


def test_closing_without_a_server_is_bounded_and_counts_what_is_lost(told: list[str]) -> None:
    with sending(NOBODY, limits=SenderLimits(linger_s=3_600)) as sender:
        for number in range(1_500):
            sender.put(line(number))
        sender.close(0.3)
        assert sender.stats().dropped == {"closed": 1_500}
        assert sender.stats().queued == 0
    assert "1500 logs were not sent when the program ended, and are lost" in told


def test_closing_does_not_wait_for_a_server_that_never_answers(told: list[str], tmp_path: Path) -> None:
    answered = threading.Event()

    def script(_: Request) -> Answer:
        answered.wait(DEADLINE_S)
        return Answer()

    with scripted(script) as server:
        sender = Sender(server.url, service_name="shop", limits=QUICK, spool_dir=tmp_path)
        for number in range(10):
            sender.put(line(number))
        until(lambda: len(server.requests) == 1, "a request is under way")
        for number in range(10, 20):
            sender.put(line(number))
        sender.close(0.1)
        assert sender.flush(0.0)
        answered.set()
        assert sender.stats().dropped == {}
        # What was under way is sent again under its key: it is stored once.
        with sending(server.url, spool_dir=tmp_path) as again:
            until(lambda: len(numbers(server)) == 20, "the next process sends it")
            assert again.stats().dropped == {}
        assert numbers(server) == list(range(20))


def test_closing_without_a_server_keeps_everything_in_the_spool_for_the_next_start(tmp_path: Path) -> None:
    with sending(NOBODY, spool_dir=tmp_path, limits=SenderLimits(linger_s=3_600)) as sender:
        for number in range(2_500):
            sender.put(line(number))
        sender.close(DEADLINE_S)
        assert sender.stats().dropped == {}
    with scripted() as server, sending(server.url, spool_dir=tmp_path) as sender:
        until(lambda: len(server.messages) == 2_500, "it is sent without a log of this one")
        assert numbers(server) == list(range(2_500))
        until(lambda: not list(tmp_path.glob("*/*.ndjson")), "nothing is left")


def test_what_dead_processes_left_is_sent_by_the_next_one(tmp_path: Path) -> None:
    senders = [Sender(NOBODY, service_name="shop", limits=QUICK, spool_dir=tmp_path) for _ in range(3)]
    for first, sender in enumerate(senders):
        sender.put(line(first))
        assert sender.flush(DEADLINE_S)
    for sender in senders:
        sender.close()
    assert len(list(tmp_path.glob("*/*.ndjson"))) == 3
    with scripted() as server, sending(server.url, spool_dir=tmp_path):
        until(lambda: sorted(numbers(server)) == [0, 1, 2], "all of them")


def test_a_full_spool_leaves_logs_in_memory_and_then_refuses(tmp_path: Path) -> None:
    large = "x" * 900_000
    limits = SenderLimits(linger_s=0.01, batch_logs=1, queue_logs=4, spool_bytes=8 * 1024 * 1024)
    with scripted(lambda _: problem(503, "unavailable")) as server:
        with sending(server.url, spool_dir=tmp_path, limits=limits) as sender:
            put = 0
            ends_s = time.monotonic() + DEADLINE_S
            while not sender.stats().dropped:
                assert time.monotonic() < ends_s
                put += sender.put(line(large))
                time.sleep(0.002)
            assert sender.stats().spooled_bytes <= 8 * 1024 * 1024
            server.script = take_all
            until(lambda: sender.stats().accepted >= put, "all that was taken is sent")
            assert len([message for message in server.messages if message == large]) == put


def test_a_spool_that_cannot_be_used_is_told_and_logs_are_sent(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "file").write_text("")
    with scripted() as server, sending(server.url, spool_dir=tmp_path / "file") as sender:
        sender.put(line(1))
        assert sender.flush(DEADLINE_S)
        assert numbers(server) == [1]
    assert any("cannot be used" in text for text in told)


def test_a_spool_waits_while_a_program_has_no_descriptors_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    """What is wrong with the process is not wrong with the files: none of them is put aside."""
    with sending(NOBODY, spool_dir=tmp_path, limits=SenderLimits(linger_s=0.01, batch_logs=10)) as sender:
        for number in range(30):
            sender.put(line(number))
        assert sender.flush(DEADLINE_S)
    read, failures = Path.read_bytes, iter(range(3))

    def few_descriptors(path: Path) -> bytes:
        if next(failures, None) is not None:
            raise OSError(errno.EMFILE, "Too many open files")
        return read(path)

    monkeypatch.setattr("logfeed_client.sending.disk._DISK_REST_S", 0.01)
    monkeypatch.setattr(Path, "read_bytes", few_descriptors)
    with scripted() as server, sending(server.url, spool_dir=tmp_path) as sender:
        sender.put(line(30))
        until(lambda: len(server.messages) >= 31, "everything is sent")
        assert numbers(server) == list(range(31))
        assert sender.stats().dropped == {}
    assert list(tmp_path.glob("*/*.unreadable")) == []
    assert any("Too many open files" in text for text in told)


# --- secrets


@pytest.mark.parametrize("key", ["lf_secret key", "lf_secret\r\nX-Other: 1", "lf_secret\u00e9"])
def test_a_key_that_no_header_takes_is_told_without_the_key(key: str, told: list[str]) -> None:
    for make in (Sender, lambda url, **options: Client(url, api_key=options["api_key"])):
        with pytest.raises(ValueError, match="API key") as raised:
            make(NOBODY, service_name="shop", api_key=key)
        assert "secret" not in str(raised.value)
    with scripted() as server, sending(server.url, api_key=lambda: key) as sender:
        sender.put(line(1))
        until(lambda: bool(told), "the trouble is told")
        assert "API key" in told[0]
        assert "secret" not in "".join(told)


def test_a_key_out_of_a_file_may_end_with_a_line_end() -> None:
    with scripted() as server:
        for key in ("lf_key\n", lambda: " lf_key\r\n"):
            with sending(server.url, api_key=key) as sender:
                sender.put(line(1))
                assert sender.flush(DEADLINE_S)
        assert [request.authorization for request in server.requests] == ["Bearer lf_key"] * 2


def test_a_password_in_an_address_is_not_told(told: list[str]) -> None:
    with pytest.raises(ValueError, match="url must be like") as raised:
        Sender("logs://me:secret@logs.example", service_name="shop")
    assert "secret" not in str(raised.value)
    with sending("http://me:secret@127.0.0.1:9") as sender:
        sender.put(line(1))
        until(lambda: bool(told), "the trouble is told")
    assert "127.0.0.1:9" in told[0]
    assert "secret" not in "".join(told)


# --- processes


def test_a_child_of_a_fork_sends_its_own_logs_and_none_of_its_parent(tmp_path: Path) -> None:
    with scripted() as server:
        sender = Sender(server.url, service_name="shop", limits=SenderLimits(linger_s=3_600), spool_dir=tmp_path)
        sender.put(line("parent before"))
        pid = os.fork()
        if pid == 0:
            try:
                sender.put(line("child"))
                is_sent = sender.flush(DEADLINE_S)
                os._exit(0 if is_sent and sender.stats().taken == 1 else 1)
            finally:
                os._exit(2)
        sender.put(line("parent after"))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert server.messages == ["child"]
        sender.close(DEADLINE_S)
        assert server.messages == ["child", "parent before", "parent after"]


PROGRAM = """
import multiprocessing, sys
from logfeed_client import Sender, SenderLimits

def work(sender):
    sender.put(b'{"service_name":"shop","message":"child"}\\n')

if __name__ == "__main__":
    sender = Sender(sys.argv[1], service_name="shop", limits=SenderLimits(linger_s=3600))
    sender.put(b'{"service_name":"shop","message":"parent"}\\n')
    process = multiprocessing.get_context("fork").Process(target=work, args=(sender,))
    process.start()
    process.join()
"""


def test_programs_and_their_processes_send_what_waits_when_they_end() -> None:
    with scripted() as server:
        run(PROGRAM, server.url)
        assert sorted(server.messages) == ["child", "parent"]


FORKED_UNSEEN = """
import ctypes, os, sys
from logfeed_client import Sender, SenderLimits

sender = Sender(sys.argv[1], service_name="shop", spool_dir=sys.argv[2], limits=SenderLimits(linger_s=3600))
sender.put(b'{"service_name":"shop","message":"parent"}\\n')
while not os.path.exists(f"{sys.argv[2]}/0/lock"):
    pass
with sender._delivery._hand:  # the spool is claimed
    pass
child = ctypes.PyDLL(None).fork()  # as uWSGI forks: Python is not told
if child == 0:
    sender.close(0.0)
    os._exit(0)
os.waitpid(child, 0)
"""

LET_GO = """
import sys, httpx
from logfeed_client import Sender, SenderLimits

def work():
    sender = Sender(
        sys.argv[1], service_name="shop", make_client=httpx.Client, limits=SenderLimits(linger_s=3600)
    )
    sender.put(b'{"service_name":"shop","message":"kept"}\\n')

work()
"""


def run(program: str, *arguments: str) -> None:
    client = Path(notes.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(client)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_child_that_python_was_not_told_of_leaves_its_parents_logs_alone(tmp_path: Path) -> None:
    with scripted() as server:
        run(FORKED_UNSEEN, server.url, str(tmp_path))
        assert server.messages == ["parent"]
    assert list(tmp_path.glob("*/*.ndjson")) == [], "nothing that the next process would send again"


def test_a_sender_that_nobody_holds_any_more_still_sends_at_the_end() -> None:
    with scripted() as server:
        run(LET_GO, server.url)
        assert server.messages == ["kept"]


# --- settings


def test_what_cannot_be_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="url must be like"):
        Sender("logs.example", service_name="shop")
    with pytest.raises(ValueError, match="queue_logs must hold a batch"):
        SenderLimits(queue_logs=10)
    with pytest.raises(ValueError, match="spool_bytes must be"):
        SenderLimits(spool_bytes=10)


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted() as server:
        monkeypatch.setenv("LOGFEED_URL", server.url)
        monkeypatch.setenv("LOGFEED_API_KEY", "lf_from_environment")
        sender = Sender(service_name="shop", limits=QUICK)
        sender.put(line(1))
        assert sender.flush(DEADLINE_S)
        assert server.requests[0].authorization == "Bearer lf_from_environment"
        sender.close()


def test_pauses_grow_and_are_stretched_by_chance() -> None:
    assert 0.0 < pause_s(0, None, 0.0) < pause_s(0, None, 1.0)
    assert pause_s(100, None, 1.0) <= PAUSE_S_MAX
    for chance in (0.0, 0.5, 1.0):
        assert pause_s(3, 7.0, chance) >= 7.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("9999999", ASKED_S_MAX),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("9" * 5_000, None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, 10.0) == seconds


def test_a_client_of_the_programs_own_is_used() -> None:
    seen: list[str] = []

    def make() -> httpx.Client:
        return httpx.Client(
            headers={"User-Agent": "mine"}, event_hooks={"request": [lambda r: seen.append(r.headers["User-Agent"])]}
        )

    with scripted() as server, sending(server.url, make_client=make) as sender:
        sender.put(line(1))
        assert sender.flush(DEADLINE_S)
    assert seen == ["mine"]
