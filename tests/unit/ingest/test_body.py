"""Bodies are bounded while they stream in, however they are packed."""

from __future__ import annotations

import asyncio
import gzip
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator

import cramjam
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingest.body import CHUNKS_MAX, MEMBERS_MAX, read_body
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
        case "deflate":
            return zlib.compress(body)
        case "deflate without header":
            packer_of_raw = zlib.compressobj(wbits=-15)
            return packer_of_raw.compress(body) + packer_of_raw.flush()
        case "snappy":
            return bytes(cramjam.snappy.compress_raw(body))
        case "x-snappy-framed" | "snappy of frames":
            return bytes(cramjam.snappy.compress(body))
        case "x-snappy-framed in pieces":
            pieces = [cramjam.snappy.compress(body[:10]), cramjam.snappy.compress(body[10:])]
            return PADDING.join(map(bytes, pieces)) + PADDING
        case _:
            return body


PADDING = b"\xfe\x03\x00\x00pad"
"""A chunk of framed snappy that holds nothing."""
ENCODINGS = [
    *("identity", "gzip", "gzip of members", "zstd", "zstd of frames", "zstd without size"),
    *("deflate", "deflate without header", "snappy", "snappy of frames"),
    *("x-snappy-framed", "x-snappy-framed in pieces"),
]


@given(body=st.binary(min_size=1, max_size=5_000), encoding=st.sampled_from(ENCODINGS), size=st.integers(1, 4_000))
def test_every_packing_gives_the_body_whatever_the_chunks(body: bytes, encoding: str, size: int) -> None:
    assert asyncio.run(read(pack(body, encoding), encoding.split()[0], size=size)) == body


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_limit_holds_for_the_decompressed_size(encoding: str) -> None:
    name = encoding.split()[0]
    assert len(await read(pack(b"x" * MiB, encoding), name)) == MiB
    with pytest.raises(BodyTooLarge):
        await read(pack(b"x" * (MiB + 1), encoding), name)


@pytest.mark.parametrize("encoding", [each for each in ENCODINGS if each not in ("identity", "zstd of frames")])
async def test_bomb_is_refused_in_bounded_memory(encoding: str) -> None:
    bomb = pack(bytes(100 * MiB), encoding)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            await read(bomb, encoding.split()[0])
        assert tracemalloc.get_traced_memory()[1] < 48 * MiB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate", "deflate without header", "snappy", "x-snappy-framed"])
@pytest.mark.parametrize("damage", ["cut", "rubbish", "tail"])
async def test_broken_packing_is_malformed(encoding: str, damage: str) -> None:
    packed = pack(bytes(range(256)) * 40, encoding)
    broken = {"cut": packed[:-5], "rubbish": b"rubbish" * 20, "tail": packed + b"rubbish"}[damage]
    with pytest.raises(MalformedBody):
        await read(broken, encoding.split()[0])


async def test_a_snappy_body_with_another_checksum_is_malformed() -> None:
    packed = bytearray(pack(b"x" * 1_000, "x-snappy-framed"))
    packed[14] ^= 1
    with pytest.raises(MalformedBody):
        await read(bytes(packed), "x-snappy-framed")


async def test_a_snappy_block_says_its_size_before_it_is_kept() -> None:
    """A block of 4 GiB is refused by its first bytes, and what waits for its end is in flight."""
    budget = InFlight(1_000)
    with pytest.raises(BodyTooLarge):
        await read(b"\xff\xff\xff\xff\x0f" + bytes(100), "snappy", budget=budget)
    with pytest.raises(Overloaded):
        await read(b"\xff\x07" + bytes(600), "snappy", size=100, budget=budget)
    with pytest.raises(MalformedBody):
        await read(b"\xff" * 9, "snappy")
    assert budget.bytes == 0


@pytest.mark.parametrize("size", [7, 65_536])
async def test_snappy_chunks_of_a_body_are_bounded(size: int) -> None:
    begin, rest = pack(b"x", "x-snappy-framed")[:10], pack(b"x", "x-snappy-framed")[10:]
    assert await read(begin + PADDING * (CHUNKS_MAX - 2) + rest, "x-snappy-framed", size=size) == b"x"
    with pytest.raises(MalformedBody, match="more than 10000"):
        await read(begin + PADDING * (CHUNKS_MAX - 1) + rest, "x-snappy-framed", size=size)


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
    for encoding in ("br", "gzip, zstd", "snappy-framed"):
        with pytest.raises(UnsupportedBody, match="gzip, zstd, deflate, snappy, x-snappy-framed, identity"):
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
