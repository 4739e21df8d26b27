"""The agent, composed: the only place that makes its parts."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import ssl
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import httpx
import structlog

from agent.api import AgentApi
from agent.asking import new_client
from agent.errors import StateError
from agent.health import health_app
from agent.heartbeat import Heartbeat
from agent.reading.pool import ReaderPool
from agent.roots import Root
from agent.serving import listening, serve
from agent.settings import AgentConfiguration, AgentSettings, RootSettings, read_api_key
from agent.shipping.checkpoint import Checkpoint
from agent.shipping.joining import JoinRules, continuation_rule, start_rule
from agent.shipping.sending import Sender
from agent.shipping.shipper import Shipper
from agent.shipping.tailed import ShippedRoot
from agent.syslog.listener import SyslogListener
from agent.syslog.spool import PATTERN, Spool
from formats.lines import compile_expression
from runtime.clock import Clock, SystemClock
from runtime.stopping import Stop, listen_for_signals
from schemas.errors import ConfigurationError, LogfeedError

log = structlog.get_logger(__name__)

SPOOL_ROOT: Final = "(syslog)"
"""A root's name that no setting can have."""
_TOKEN_BYTES: Final = 32
_HEALTH_CONNECTIONS_MAX: Final = 20


async def run_agent(configuration: AgentConfiguration, environment: Mapping[str, str] | None = None) -> None:
    """Run until SIGTERM or Ctrl-C. Raises ConfigurationError, StateError."""
    stop = Stop()
    listen_for_signals(stop)
    await Agent(configuration.agent, os.environ if environment is None else environment).run(stop)


class Agent:
    """One agent of this process."""

    def __init__(self, settings: AgentSettings, environment: Mapping[str, str]) -> None:
        """environment: of the key. Raises ConfigurationError."""
        self._settings, self._environment = settings, environment
        self._clock: Clock = SystemClock()
        self._trust = _trust(settings.ca_file)
        self._shipper: Shipper | None = None
        self._listener: SyslogListener | None = None
        self._heartbeat: Heartbeat | None = None
        read_api_key(settings, environment)

    async def run(self, stop: Stop) -> None:
        """Work until the stop. Raises ConfigurationError, StateError."""
        settings = self._settings
        for problem in settings.check_folders():
            log.warning("a root is not there", problem=problem)
        if settings.is_open_in_clear:
            log.warning(
                "LINES AND THE TOKEN CROSS THE NETWORK READABLE FOR ALL: set agent.tls_cert and agent.tls_key",
                host=settings.host,
            )
        async with AsyncExitStack() as stack:
            listener = stack.enter_context(listening(settings.host, settings.port))
            port = int(listener.getsockname()[1])
            token = secrets.token_urlsafe(_TOKEN_BYTES)
            pool = ReaderPool(threads=settings.reader_threads, readers_max=settings.readers_max)
            stack.callback(pool.stop)
            api = AgentApi(
                settings.reading_roots(),
                pool,
                self._clock,
                token=token,
                read_s_max=settings.read_s_max,
                follow_s_max=settings.follow_s_max,
                ready=self.problems,
            )
            tls = (
                None if settings.tls_cert is None or settings.tls_key is None else (settings.tls_cert, settings.tls_key)
            )
            log.info("listening", host=settings.host, port=port, tls=tls is not None)
            parts: list[Coroutine[Any, Any, None]] = [
                serve(api, listener, stop, connections_max=settings.connections_max, tls=tls)
            ]
            if settings.health_port:
                health = stack.enter_context(listening(settings.health_host, settings.health_port))
                app = health_app(self.problems)
                parts.append(serve(app, health, stop, connections_max=_HEALTH_CONNECTIONS_MAX, tls=None))
            if settings.ships:
                parts.append(self._ship(stop))
            if settings.register_host:
                self._heartbeat = self._new_heartbeat(settings.shown_address(port), token)
                parts.append(self._heartbeat.run(stop))
            await _side_by_side(stop, parts)

    def problems(self) -> list[str]:
        """What keeps the agent from its work, one sentence each. That the server does not know this host is none: lines
        arrive."""
        parts = (self._shipper, self._listener)
        return [part.problem for part in parts if part is not None and part.problem is not None]

    async def _ship(self, stop: Stop) -> None:
        settings = self._settings
        checkpoint = Checkpoint(settings.state_dir)
        roots = [_shipped(root, settings.roots[root.name]) for root in settings.reading_roots()]
        roots = [root for root in roots if settings.roots[root.root.name].ship]
        is_closed_segment: Callable[[str], bool] = _never
        try:
            if settings.receives_syslog:
                spool = _spool(settings)
                is_closed_segment = spool.is_closed
                folder = Root(SPOOL_ROOT, spool.directory, "syslog", (PATTERN,))
                roots.append(ShippedRoot(folder, is_ready=True))
                self._listener = SyslogListener(settings.syslog, spool, self._clock, agent=settings.name)
            self._shipper = Shipper(
                roots,
                checkpoint,
                lambda: Sender(self._client(settings.ingest_url or settings.url), self._clock),
                self._clock,
                host=settings.name,
                files_max=settings.files_max,
                batch_bytes_max=settings.batch_bytes_max,
                unfinished_line_s=settings.unfinished_line_s,
                scan_s=settings.scan_s,
                is_closed_segment=is_closed_segment,
                chance=random.random,
            )
            if self._listener is not None:
                await self._listener.start()
            await self._shipper.run(stop)
        finally:
            if self._listener is not None:
                await self._listener.stop()
            checkpoint.close()

    def _new_heartbeat(self, address: str, token: str) -> Heartbeat:
        settings = self._settings
        return Heartbeat(
            lambda: self._client(settings.url),
            self._clock,
            host=settings.name,
            address=address,
            token=token,
            version=version("logfeed"),
            services=[root.service for root in settings.roots.values()],
        )

    def _client(self, url: str) -> httpx.AsyncClient:
        return new_client(url, api_key=read_api_key(self._settings, self._environment), trust=self._trust)


async def _side_by_side(stop: Stop, parts: list[Coroutine[Any, Any, None]]) -> None:
    """Run all of them; when one ends by an error, all end, and it is raised."""

    async def until_stop(part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        finally:
            stop.set()

    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(until_stop(part))
    except BaseExceptionGroup as errors:
        expected: BaseException | None = errors.subgroup(LogfeedError)
        if expected is None:
            raise
        while isinstance(expected, BaseExceptionGroup):
            expected = expected.exceptions[0]
        raise expected from errors


def _never(_name: str) -> bool:
    return False


def _spool(settings: AgentSettings) -> Spool:
    try:
        return Spool(settings.state_dir / "syslog", bytes_max=settings.syslog.spool_bytes_max)
    except OSError as error:
        raise StateError(f"{settings.state_dir}: the spool cannot be made: {error.strerror}") from error


def _shipped(root: Root, settings: RootSettings) -> ShippedRoot:
    if settings.join_start is not None:
        rules = start_rule(compile_expression(settings.join_start, "join_start"))
    elif settings.join_continuation is not None:
        rules = continuation_rule(compile_expression(settings.join_continuation, "join_continuation"))
    else:
        rules = JoinRules()
    has_own = settings.join_start is not None or settings.join_continuation is not None
    return ShippedRoot(
        root,
        begin_at_end=settings.begin == "end",
        format=settings.format,
        zone=settings.zone,
        rules=rules,
        joins_automatically=settings.join == "auto" and not has_own,
        join_timeout_s=settings.join_timeout_s,
        metadata=settings.metadata,
    )


def _trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"agent.ca_file: {ca_file} cannot be read as PEM certificates: {error}") from error
