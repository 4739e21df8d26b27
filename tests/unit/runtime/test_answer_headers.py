"""Headers of every answer."""

from __future__ import annotations

from starlette.types import Message

from runtime.answer_headers import API_POLICY, FIXED, AnswerHeaders, raw_lines

HEADERS = AnswerHeaders(hsts_s=60)


async def sent(headers: list[tuple[bytes, bytes]], *, scheme: str = "http") -> dict[bytes, bytes]:
    """What goes out of an answer with these headers. No name comes twice."""
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    guarded = HEADERS.guard({"type": "http", "path": "/x", "scheme": scheme}, send)
    await guarded({"type": "http.response.start", "status": 200, "headers": headers})
    await guarded({"type": "http.response.body", "body": b"x"})
    assert [message["type"] for message in messages] == ["http.response.start", "http.response.body"]
    found = messages[0]["headers"]
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


async def test_every_answer_has_them_and_keeps_its_own() -> None:
    own = [(b"content-type", b"text/plain")]
    found = await sent(own)
    assert found == {
        **dict(own),
        **dict(FIXED),
        b"content-security-policy": API_POLICY.encode(),
        b"cache-control": b"no-store",
    }
    assert own == [(b"content-type", b"text/plain")], "an answer that is given twice does not grow"


async def test_what_an_answer_says_of_keeping_it_stands() -> None:
    assert (await sent([(b"cache-control", b"private, no-cache")]))[b"cache-control"] == b"private, no-cache"


async def test_hsts_is_sent_over_tls_alone() -> None:
    assert b"strict-transport-security" not in await sent([])
    assert (await sent([], scheme="https"))[b"strict-transport-security"] == b"max-age=60"


async def test_a_denied_websocket_has_them_too() -> None:
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    guarded = HEADERS.guard({"type": "websocket", "path": "/x", "scheme": "wss"}, send)
    await guarded({"type": "websocket.http.response.start", "status": 403, "headers": []})
    found = dict(messages[0]["headers"])
    assert found.items() >= dict(FIXED).items()
    assert (found[b"cache-control"], found[b"strict-transport-security"]) == (b"no-store", b"max-age=60")


async def test_a_page_keeps_its_own_policy() -> None:
    own = [(b"content-security-policy", b"default-src 'self'"), (b"cache-control", b"public")]
    for scheme in ("http", "https"):
        found = await sent(own, scheme=scheme)
        assert (found[b"content-security-policy"], found[b"cache-control"]) == (b"default-src 'self'", b"public")
        assert found[b"x-content-type-options"] == b"nosniff"


def test_answers_without_an_application_say_the_same() -> None:
    lines = raw_lines().split("\r\n")
    assert lines.pop() == ""
    assert {line.partition(": ")[0] for line in lines} == {
        "content-security-policy",
        "cache-control",
        *(name.decode() for name, _ in FIXED),
    }
