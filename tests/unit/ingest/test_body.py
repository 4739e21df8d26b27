"""Bodies are bounded while they stream in, however they are packed."""

from __future__ import annotations

import asyncio
import gzip
import time
import tracemalloc
from collections.abc import AsyncIterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingest.body import MEMBERS_MAX, read_body
from ingest.errors import BodyTooLarge, BodyTooSlow, MalformedBody, UnsupportedBody
from ingest.in_flight import InFlight
from schemas.errors import LogfeedError, Overloaded

MiB = 1024 * 1024


async def chunks(body: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def read(
    body: bytes, encoding: str = "", *, bytes_max: int = MiB, size: int = 65_536, budget: InFlight | None = None
) -> bytes:
    with (budget or InFlight(1 << 30)).hold("reader") as hold:
        return await read_body(
            chunks(body, size),
            content_encoding=encoding,
            content_length=None,
            bytes_max=bytes_max,
            deadline_s=5,
            grow=hold.grow,
        )


def pack(body: bytes, encoding: str) -> bytes:
    match encoding:
        case "gzip":
            return gzip.compress(body)
        case "gzip of members":
            return gzip.compress(body[:10]) + gzip.compress(b"") + gzip.compress(body[10:])
        case "zstd":
            return zstandard.compress(body)
        case "zstd of frames":
            return zstandard.compress(body[:10]) + zstandard.compress(body[10:])
        case "zstd without size":
            packer = zstandard.ZstdCompressor().compressobj()
            return packer.compress(body) + packer.flush()
        case _:
            return body


ENCODINGS = ["identity", "gzip", "gzip of members", "zstd", "zstd of frames", "zstd without size"]


@given(body=st.binary(min_size=1, max_size=5_000), encoding=st.sampled_from(ENCODINGS), size=st.integers(1, 4_000))
def test_every_packing_gives_the_body_whatever_the_chunks(body: bytes, encoding: str, size: int) -> None:
    assert asyncio.run(read(pack(body, encoding), encoding.split()[0], size=size)) == body


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_limit_holds_for_the_decompressed_size(encoding: str) -> None:
    name = encoding.split()[0]
    assert len(await read(pack(b"x" * MiB, encoding), name)) == MiB
    with pytest.raises(BodyTooLarge):
        await read(pack(b"x" * (MiB + 1), encoding), name)


@pytest.mark.parametrize("encoding", ["gzip", "gzip of members", "zstd", "zstd without size"])
async def test_bomb_is_refused_in_bounded_memory(encoding: str) -> None:
    bomb = pack(bytes(100 * MiB), encoding)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            await read(bomb, encoding.split()[0])
        assert tracemalloc.get_traced_memory()[1] < 48 * MiB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "rubbish", "tail"])
async def test_broken_packing_is_malformed(encoding: str, damage: str) -> None:
    packed = pack(bytes(range(256)) * 40, encoding)
    broken = {"cut": packed[:-5], "rubbish": b"rubbish" * 20, "tail": packed + b"rubbish"}[damage]
    with pytest.raises(MalformedBody):
        await read(broken, encoding)


EMPTY = {
    "gzip": gzip.compress(b""),
    "zstd": zstandard.compress(b""),
    "zstd skippable": b"\x50\x2a\x4d\x18" + bytes(4),
}


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("size", [7, 65_536])
async def test_members_of_a_body_are_bounded(kind: str, size: int) -> None:
    encoding = kind.split()[0]
    last = pack(b"x", encoding)
    assert await read(EMPTY[kind] * (MEMBERS_MAX - 1) + last, encoding, size=size) == b"x"
    with pytest.raises(MalformedBody, match="more than 1000"):
        await read(EMPTY[kind] * MEMBERS_MAX + last, encoding, size=size)


@pytest.mark.parametrize("kind", EMPTY)
async def test_many_empty_members_are_refused_at_once(kind: str) -> None:
    body = EMPTY[kind] * (8 * MiB // len(EMPTY[kind]))
    started_s = time.process_time()
    with pytest.raises(MalformedBody):
        await read(body, kind.split()[0], bytes_max=8 * MiB)
    assert time.process_time() - started_s < 0.5


async def test_unknown_encoding_is_unsupported() -> None:
    for encoding in ("br", "gzip, zstd", "deflate"):
        with pytest.raises(UnsupportedBody, match="gzip, zstd, identity"):
            await read(b"x", encoding)
    assert await read(b"x", " GZIP ".lower().replace("gzip", "identity")) == b"x"


async def test_announced_length_is_refused_before_reading() -> None:
    asked: list[bool] = []

    async def never() -> AsyncIterator[bytes]:
        asked.append(True)
        yield b""

    with pytest.raises(BodyTooLarge):
        await read_body(
            never(), content_encoding="", content_length=MiB + 1, bytes_max=MiB, deadline_s=1, grow=lambda _: None
        )
    assert not asked


async def test_slow_body_is_ended_at_the_deadline() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    with pytest.raises(BodyTooSlow):
        await read_body(
            slow(), content_encoding="", content_length=None, bytes_max=MiB, deadline_s=0.05, grow=lambda _: None
        )


@pytest.mark.parametrize(("body", "encoding"), [(b"x" * 1001, ""), (b"broken", "gzip"), (b"x" * 900_000, "br")])
async def test_no_byte_stays_in_flight_after_a_refusal(body: bytes, encoding: str) -> None:
    budget = InFlight(2000)
    with pytest.raises(LogfeedError):
        await read(body, encoding, budget=budget)
    assert budget.bytes == 0


async def test_bytes_in_flight_are_bounded_over_all_requests() -> None:
    budget = InFlight(1000)
    with budget.hold("another") as first:
        first.grow(500)
        with pytest.raises(Overloaded):
            await read(b"x" * 251, budget=budget)
        assert await read(b"x" * 250, budget=budget)
        assert budget.bytes == 500
    assert budget.bytes == 0
