"""Sample experiments: agents that train for a minute or two and say how it goes.

`Trainings` decides and is pure but for its own random numbers; `run_demo_experiments` sends, once a second. What the server
does not take is dropped. At once: RUNNING_MAX experiments.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import structlog

from cli.demo_traffic import encode
from cli.http_client import Trust, new_client
from runtime.clock import Clock, SystemClock
from runtime.stopping import Stop
from schemas.times import time_text

log = structlog.get_logger(__name__)

RUNNING_MAX: Final = 3
PAST: Final = 12
_SERVICE: Final = "training"
_BEGIN_EVERY_S: Final = 40.0
_STEP_S: Final = 1.0
_PAST_EVERY_S: Final = 150
_ENDS: Final = {"completed": 70, "errored": 20, "canceled": 10}
_MODELS: Final = ("resnet-18", "gru-256", "unet-small", "mlp-4")

Entry = dict[str, Any]
"""See cli.demo_traffic.Entry."""


@dataclass(slots=True)
class Training:
    """One experiment under way."""

    experiment_id: str
    name: str
    agents: int
    steps: int
    end: str
    metadata: dict[str, Any]
    begun_us: int
    step: int = 0
    loss: float = field(default=2.3)


class Trainings:
    """Makes experiments and their logs."""

    def __init__(self, seed: int) -> None:
        """seed: the same one makes the same experiments."""
        self._dice = random.Random(seed)
        self._number = 100 + seed % 800

    def begin(self, at_us: int) -> Training:
        """A new one."""
        dice, self._number = self._dice, self._number + 1
        rate = dice.choice((0.1, 0.03, 0.01, 0.003))
        model = dice.choice(_MODELS)
        return Training(
            experiment_id=f"exp-{self._number}-{dice.randrange(16**4):04x}",
            name=f"{model}, learning rate {rate}",
            agents=dice.randint(2, 5),
            steps=dice.randint(60, 130),
            end=dice.choices([*_ENDS], [*_ENDS.values()])[0],
            metadata={"model": model, "learning_rate": rate, "seed": dice.randrange(1000)},
            begun_us=at_us,
        )

    def step(self, training: Training, at_us: int) -> list[Entry]:
        """What its agents say at one step."""
        dice = self._dice
        training.step += 1
        training.loss = max(0.02, training.loss * dice.uniform(0.95, 1.01))
        entries = []
        for agent in range(training.agents):
            loss = round(training.loss * dice.uniform(0.9, 1.1), 4)
            moment = at_us + agent * 1_000 + dice.randrange(900)
            if dice.random() < 0.03:
                slow_ms = dice.randint(400, 3_000)
                said = self._entry(
                    training, agent, moment, "WARN", f"step took {slow_ms} ms, data loader is behind", slow_ms=slow_ms
                )
            elif dice.random() < 0.01:
                said = self._entry(training, agent, moment, "ERROR", "gradient overflow, scale halved and step skipped")
            else:
                message = f"step {training.step} of {training.steps}, loss {loss}"
                said = self._entry(training, agent, moment, "INFO", message, step=training.step, loss=loss)
            entries.append(said)
        if training.step == training.steps and training.end == "errored":
            entries.append(
                self._entry(training, 0, at_us + 9_000, "FATAL", "CUDA out of memory: tried to allocate 2.50 GiB")
            )
        return entries

    @staticmethod
    def _entry(training: Training, agent: int, at_us: int, level: str, message: str, **more: Any) -> Entry:
        metadata = {"experiment_id": training.experiment_id, "agent_id": f"agent-{agent}", **more}
        return {"at_us": at_us, "service_name": _SERVICE, "level": level, "message": message, "metadata": metadata}


async def run_demo_experiments(
    base_url: str,
    stop: Stop,
    *,
    api_key: str | None = None,
    trust: Trust | None = None,
    seed: int | None = None,
    clock: Clock | None = None,
) -> None:
    """Send sample experiments until the stop. See cli.demo_traffic.run_demo_traffic."""
    clock = clock or SystemClock()
    trainings = Trainings(random.randrange(1 << 32) if seed is None else seed)
    async with new_client(base_url, connections=1, api_key=api_key, trust=trust) as client:
        for number in range(PAST, 0, -1):
            if stop.is_set:
                return
            await _send_past(client, trainings, clock.now_us() - number * _PAST_EVERY_S * 1_000_000)
        running: list[Training] = []
        next_s = clock.monotonic_s()
        while not stop.is_set:
            if clock.monotonic_s() >= next_s and len(running) < RUNNING_MAX:
                next_s = clock.monotonic_s() + _BEGIN_EVERY_S
                begun = trainings.begin(clock.now_us())
                running.append(begun)
                await _put(client, begun, "queued", name=begun.name, service_name=_SERVICE, metadata=begun.metadata)
                await _put(client, begun, "running")
            now_us = clock.now_us()
            await _send(client, [entry for training in running for entry in trainings.step(training, now_us)])
            for training in [each for each in running if each.step == each.steps]:
                running.remove(training)
                await _put(client, training, training.end)
            await stop.wait(_STEP_S)
        # What ends with this process would run for ever.
        async with asyncio.timeout(5):
            for training in running:
                await _put(client, training, "canceled")


async def _send_past(client: httpx.AsyncClient, trainings: Trainings, begins_us: int) -> None:
    training = trainings.begin(begins_us)
    entries: list[Entry] = []
    while training.step < training.steps:
        entries += trainings.step(training, begins_us + training.step * 1_000_000)
    times = {"started_at": time_text(begins_us), "ended_at": time_text(begins_us + training.steps * 1_000_000)}
    about = {"name": training.name, "service_name": _SERVICE, "metadata": training.metadata}
    await _put(client, training, training.end, **times, **about)
    await _send(client, entries)


async def _put(client: httpx.AsyncClient, training: Training, status: str, **fields: Any) -> None:
    await _ask(client, "PUT", f"/api/v1/experiments/{training.experiment_id}", json={"status": status, **fields})


async def _send(client: httpx.AsyncClient, entries: list[Entry]) -> None:
    if entries:
        headers = {"Content-Type": "application/x-ndjson"}
        await _ask(client, "POST", "/api/v1/logs/batch", content=encode(entries), headers=headers)


async def _ask(client: httpx.AsyncClient, method: str, path: str, **arguments: Any) -> None:
    try:
        response = await client.request(method, path, **arguments)
    except httpx.TransportError as error:
        log.warning("sample experiments not sent", path=path, error=str(error) or type(error).__name__)
        return
    if not response.is_success:
        log.warning("sample experiments refused", path=path, status=response.status_code)
