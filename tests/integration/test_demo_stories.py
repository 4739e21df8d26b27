"""The demo's experiments and connections are taken as they are sent, and end with it."""

from __future__ import annotations

import asyncio
from typing import Any

from cli.demo_connections import PAST as CONNECTIONS
from cli.demo_connections import Stream, run_demo_connections
from cli.demo_experiments import PAST as EXPERIMENTS
from cli.demo_experiments import run_demo_experiments
from runtime.stopping import Stop
from tests.access_site import Site, running, soon
from tests.app_server import serving


async def test_the_demo_shows_experiments_and_connections(native_url: str) -> None:
    async with running(native_url) as site, serving(site.app) as port:
        key = (await site.key("write:*", "read:*")).text
        stop = Stop()
        running_now = [
            asyncio.create_task(run(f"http://127.0.0.1:{port}", stop, api_key=key, seed=7))
            for run in (run_demo_experiments, run_demo_connections)
        ]

        async def is_shown() -> bool:
            connections = await _listed(site, key, "connections")
            experiments = await _listed(site, key, "experiments", status="running")
            return len(connections) > CONNECTIONS and bool(experiments)

        await soon(is_shown, "the past and the present are there", 90)
        stop.set()
        await asyncio.gather(*running_now)
        experiments = await _listed(site, key, "experiments")
        assert len(experiments) > EXPERIMENTS
        assert all(each["status"] in ("completed", "errored", "canceled") for each in experiments)
        connections = await _listed(site, key, "connections")
        assert any(each["server"] is None for each in connections)
        assert any(each["server"] and each["client"] and each["client"]["errors"] for each in connections)


async def _listed(site: Site, key: str, what: str, **parameters: Any) -> list[dict[str, Any]]:
    answer = await site.ask(key, "GET", f"/api/v1/{what}", params=parameters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()[what]
    return found


def test_a_stream_only_grows() -> None:
    stream, again = Stream(3, 1_800_000_000_000_000), Stream(3, 1_800_000_000_000_000)
    stream.go_on(1_800_000_010_000_000)
    before = dict(stream.texts)
    stream.go_on(1_800_000_030_000_000)
    assert all(stream.texts[side].startswith(text) for side, text in before.items())
    again.go_on(1_800_000_010_000_000)
    assert again.texts == before
