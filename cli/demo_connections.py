"""Sample connections: a screen is captured and encoded on a server, sent, decoded and shown by a client; both keep logs.

`Stream` decides and is pure but for its own random numbers; `run_demo_connections` sends: some that are over, then one that
goes on and whose texts grow. What the server does not take is dropped.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import structlog

from cli.http_client import Trust, new_client
from runtime.clock import Clock, SystemClock
from runtime.stopping import Stop
from schemas.times import time_text

log = structlog.get_logger(__name__)

PAST: Final = 40
_PAST_EVERY_S: Final = 240
_GROWS_EVERY_S: Final = 3.0
_LASTS_S: Final = 120.0
_NAMES: Final = ("ada", "grace", "edsger", "barbara", "donald", "radia", "ken", "frances")


class Stream:
    """One connection's two texts."""

    def __init__(self, seed: int, at_us: int) -> None:
        """seed: the same one says the same at the same times. at_us: where it begins."""
        self._dice = dice = random.Random(seed)
        self.connection_id = f"c{seed % 10**7:07d}"
        self.username = f"{dice.choice(_NAMES)}@example.com"
        self.ip = f"198.51.100.{dice.randrange(1, 255)}"
        self.version = dice.choice(("a1b2c3d", "e4f5a6b", "9c8d7e6"))
        self.has = dice.choices((("server", "client"), ("server",), ("client",)), (8, 1, 1))[0]
        self.at_us = at_us
        self.texts = dict.fromkeys(self.has, "")
        self._latency_s = dice.uniform(0.015, 0.07)
        self._trouble = self._latency_s / 2

    def go_on(self, until_us: int) -> None:
        """Both texts say more, up to then."""
        while self.at_us < until_us:
            self.at_us += self._dice.randrange(200_000, 900_000)
            for side in self.has:
                level, message = self._server() if side == "server" else self._client()
                moment = datetime.fromtimestamp(self.at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
                self.texts[side] += f"{moment} | {level} | {message}\n"

    def _server(self) -> tuple[str, str]:
        dice, chance = self._dice, self._dice.random()
        if chance < self._trouble:
            return "ERROR", f"Listen | Connection reset by peer (errno 104), retry {dice.randrange(1, 6)}"
        if chance < 0.07:
            return "WARNING", f"SendVideo | Frame {dice.randrange(90_000)} dropped, encoder busy"
        if chance < 0.35:
            return "INFO", f"SendVideo | Average Encode Time: {dice.uniform(0.004, 0.011):.6f}"
        if chance < 0.6:
            return "INFO", f"SendVideo | Average Encode Size: {dice.lognormvariate(9.5, 0.5):.2f}"
        return "INFO", f"CaptureScreen | Captured frame {dice.randrange(90_000)}"

    def _client(self) -> tuple[str, str]:
        dice, chance = self._dice, self._dice.random()
        if chance < self._trouble:
            frame = dice.randrange(90_000)
            return "ERROR", f"RenderVideo | Failed to decode frame {frame}: Invalid data found when processing input"
        if chance < 0.07:
            packet = dice.randrange(90_000)
            return "WARNING", f"ReceivePackets | Packet {packet} arrived late by {dice.randrange(20, 200)} ms"
        if chance < 0.35:
            return "INFO", f"MeasureRoundTripLatency | latency: {self._latency_s * dice.lognormvariate(0, 0.4):.6f}"
        if chance < 0.6:
            return "INFO", f"UpdateDecoderStats | Avg Decode Time: {dice.uniform(0.002, 0.006):.6f}"
        return "INFO", f"RenderVideo | Rendered frame ID {dice.randrange(90_000)}"


async def run_demo_connections(
    base_url: str,
    stop: Stop,
    *,
    api_key: str | None = None,
    trust: Trust | None = None,
    seed: int | None = None,
    clock: Clock | None = None,
) -> None:
    """Send sample connections until the stop. See cli.demo_traffic.run_demo_traffic."""
    clock = clock or SystemClock()
    dice = random.Random(seed)
    async with new_client(base_url, connections=1, api_key=api_key, trust=trust) as client:
        for number in range(PAST, 0, -1):
            if stop.is_set:
                return
            begins_us = clock.now_us() - number * _PAST_EVERY_S * 1_000_000
            past = Stream(dice.randrange(1 << 32), begins_us)
            past.go_on(begins_us + dice.randint(60, 230) * 1_000_000)
            await _send(client, past)
        while not stop.is_set:
            ends_s = clock.monotonic_s() + _LASTS_S
            stream = Stream(dice.randrange(1 << 32), clock.now_us())
            while clock.monotonic_s() < ends_s and not stop.is_set:
                stream.go_on(clock.now_us())
                await _send(client, stream)
                await stop.wait(_GROWS_EVERY_S)


async def _send(client: httpx.AsyncClient, stream: Stream) -> None:
    path = f"/api/v1/connections/{stream.connection_id}"
    details = {
        "username": stream.username,
        "ip": stream.ip,
        "version": stream.version,
        "last_updated": time_text(stream.at_us),
    }
    if await _put(client, path, json=details):
        for side, text in stream.texts.items():
            headers = {"Content-Type": "text/plain; charset=utf-8"}
            await _put(client, f"{path}/logs/{side}", content=text.encode(), headers=headers)


async def _put(client: httpx.AsyncClient, path: str, **arguments: Any) -> bool:
    """Whether it was taken."""
    try:
        response = await client.put(path, **arguments)
    except httpx.TransportError as error:
        log.warning("sample connections not sent", path=path, error=str(error) or type(error).__name__)
        return False
    if not response.is_success:
        log.warning("sample connections refused", path=path, status=response.status_code)
    return response.is_success
