"""Varied log lines: a body is never repeated, since repeated bodies flatter every compressor and cache.

Templates of nine kinds of systems with changing numbers, random 128-bit correlation ids, 45 services, metadata; about
350 bytes of JSON a line. The same seed gives the same lines.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

import orjson

SERVICES: Final = tuple(f"{area}-{part}" for area in ("shop", "pay", "mail", "auth", "search") for part in "abcdefghi")
_LEVELS: Final = ("DEBUG",) * 20 + ("INFO",) * 70 + ("WARN",) * 8 + ("ERROR",) * 2
_TEMPLATES: Final = (
    "GET /v1/items/{a}?page={b} answered 200 in {f} ms for client 10.{c}.{d}.{e}",
    "POST /v1/orders answered 201 in {f} ms, order {x} with {b} positions, total {f} EUR",
    "Received block blk_{x} of size {a} from /10.{c}.{d}.{e}",
    "Verification succeeded for blk_{x} after {f} ms, {b} replicas",
    "instance {x}: creating image, took {f} seconds to build on host node-{c}",
    "pam_unix(sshd:auth): check pass; user unknown from 192.0.2.{c} port {a}",
    "Connection request from old client /10.{c}.{d}.{e}:{a}; will be dropped if server is in r-o mode",
    "Task attempt_{x}_{b} transitioned from RUNNING to SUCCEEDED, progress {f}",
    "cache miss for key user:{a}:profile, loaded {b} rows in {f} ms from replica {c}",
)


def bodies(count: int, *, logs: int, seed: int = 1) -> Iterator[bytes]:
    """`count` NDJSON request bodies of `logs` lines each."""
    chance = random.Random(seed)
    for _ in range(count):
        yield b"\n".join(_line(chance) for _ in range(logs))


def _line(chance: random.Random) -> bytes:
    a, b, c, d, e = chance.randrange(10**6), chance.randrange(500), *(chance.randrange(256) for _ in range(3))
    template = _TEMPLATES[chance.randrange(len(_TEMPLATES))]
    message = template.format(
        a=a, b=b, c=c, d=d, e=e, f=round(chance.random() * 900, 2), x=f"{chance.getrandbits(60):x}"
    )
    return orjson.dumps(
        {
            "service_name": SERVICES[chance.randrange(len(SERVICES))],
            "level": _LEVELS[chance.randrange(100)],
            "message": message,
            "correlation_id": f"{chance.getrandbits(128):032x}",
            "metadata": {"host": f"node-{c}", "duration_ms": d, "user": a, "path": f"/v1/{b}"},
        }
    )
