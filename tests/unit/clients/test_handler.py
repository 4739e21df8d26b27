"""What a program logs is what Logfeed stores, and whatever it logs, the program goes on."""

from __future__ import annotations

import json
import logging
import logging.config
import sys
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from logfeed_client import LogfeedHandler, LogfeedProcessor, Sender, SenderLimits, bind, correlation, notes
from logfeed_client.notes import sending

from ingest.parse import Window, decode_batch, to_log
from runtime.clock import SystemClock
from schemas.levels import level_name
from schemas.record import Log
from tests.unit.clients.scripted_server import scripted

DEADLINE_S = 30.0


class Kept(Sender):
    """A sender that keeps its lines."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9", service_name="shop")
        self.lines: list[bytes] = []

    def put(self, line: bytes) -> bool:
        self.lines.append(line)
        return True

    @property
    def logs(self) -> list[Log]:
        """As ingest reads them."""
        window = Window.at(SystemClock().now_us() // 1000, 400)
        found: list[Log] = []
        for item in decode_batch(b"".join(self.lines), logs_max=1_000):
            log = to_log(item, 1, window, may_hold_nul=True)
            assert isinstance(log, Log), log
            found.append(log)
        return found

    @property
    def log(self) -> Log:
        """The only one."""
        (log,) = self.logs
        return log


@pytest.fixture
def sender() -> Kept:
    return Kept()


@pytest.fixture
def log(sender: Kept) -> logging.Logger:
    """A logger of its own with a handler."""
    logger = logging.Logger("shop.orders")
    logger.addHandler(LogfeedHandler(sender=sender, metadata={"version": "1.2"}))
    return logger


def test_a_record_is_a_log_with_all_that_is_known(log: logging.Logger, sender: Kept) -> None:
    with correlation("order-1"), bind(user="u-1", step=1):
        log.warning("paid %d of %s", 3, "five", extra={"amount": 12.5, "step": 2})
    found = sender.log
    assert (found.service_name, found.message, found.correlation_id) == ("shop", "paid 3 of five", "order-1")
    assert level_name(found.level) == "WARN"
    assert abs(found.timestamp - SystemClock().now_us()) < 60_000_000
    metadata = found.metadata
    source, host = metadata.pop("source"), metadata.pop("host")
    assert source.startswith("test_handler.py:")
    assert host
    assert metadata.pop("pid") > 0
    assert metadata == {"logger": "shop.orders", "version": "1.2", "user": "u-1", "step": 2, "amount": 12.5}


def test_levels_are_those_of_logfeed(log: logging.Logger, sender: Kept) -> None:
    for number in (5, 10, 15, 20, 25, 30, 40, 45, 50, 99):
        log.log(number, "m")
    names = [level_name(each.level) for each in sender.logs]
    assert names == ["TRACE", "DEBUG", "DEBUG", "INFO", "INFO", "WARN", "ERROR", "ERROR", "FATAL", "FATAL"]


def test_an_id_of_a_log_goes_before_the_one_of_its_context(log: logging.Logger, sender: Kept) -> None:
    with correlation("outer"):
        log.info("m", extra={"correlation_id": "own"})
        log.info("m", extra={"correlation_id": 17})
        log.info("m", extra={"correlation_id": "x" * 500})
    assert [each.correlation_id for each in sender.logs] == ["own", "17", "x" * 128]


def test_exceptions_are_told_with_the_end_of_their_stack(log: logging.Logger, sender: Kept) -> None:
    def deep(number: int) -> None:
        if number == 0:
            raise ValueError("no money")
        deep(number - 1)

    try:
        deep(3)
    except ValueError:
        log.exception("failed")
        log.error("failed", exc_info=True, stack_info=True)
        log.info("on the way", stack_info=True)
    first, second, unasked = sender.logs
    found = first.metadata["exception"]
    assert (found["type"], found["message"]) == ("ValueError", "no money")
    assert found["stack"].rstrip().endswith("ValueError: no money")
    assert "test_handler.py" in second.metadata["stack"]
    assert "test_handler.py" in unasked.metadata["stack"]
    assert "exception" not in unasked.metadata
    log.error("none", exc_info=True)
    assert "exception" not in sender.logs[-1].metadata


class Hostile:
    """Fails whatever is asked of it."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class HostileError(Exception):
    """Cannot tell itself."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_nothing_that_is_logged_raises(log: logging.Logger, sender: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(notes, "say", told.append)
    log.info("%d", "no number")
    log.info("%s", Hostile())
    log.info("half a pair: \ud800, and \x00", extra={"object": Hostile()})
    try:
        raise HostileError
    except HostileError:
        log.exception("failed")
    assert [each.message for each in sender.logs] == [
        "%d (its arguments do not fit)",
        "%s (its arguments do not fit)",
        "half a pair: ?, and �",
        "failed",
    ]
    log.info(Hostile())
    assert len(sender.lines) == 4
    assert sender.stats().dropped == {"failed": 1}
    assert len(told) == 1


@settings(max_examples=40, deadline=None)
@given(message=st.text(st.characters()), field=st.text(st.characters()), name=st.text(st.characters(), min_size=1))
def test_any_text_is_stored_as_it_is_but_for_what_no_text_has(message: str, field: str, name: str) -> None:
    sender = Kept()
    logger = logging.Logger(f"a{name}")
    logger.addHandler(LogfeedHandler(sender=sender))
    logger.info(message, extra={"field": field})

    def stored(text: str) -> str:
        return text.encode("utf-8", "replace").decode().replace("\0", "�")

    assert sender.log.message == stored(message)
    assert sender.log.metadata["field"] == stored(field)
    assert sender.log.metadata["logger"] == stored(f"a{name}")


def test_a_formatter_of_the_program_makes_the_message(log: logging.Logger, sender: Kept) -> None:
    log.handlers[0].setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    log.info("paid %d", 3)
    assert sender.log.message == "INFO: paid 3"
    assert "asctime" not in sender.log.metadata
    assert "message" not in sender.log.metadata


def test_the_format_that_basic_config_gives_to_every_handler_is_none(log: logging.Logger, sender: Kept) -> None:
    log.handlers[0].setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    log.info("paid %d", 3)
    assert sender.log.message == "paid 3"


def test_levels_and_filters_of_a_handler_hold(log: logging.Logger, sender: Kept) -> None:
    log.handlers[0].setLevel(logging.WARNING)
    log.handlers[0].addFilter(lambda record: "secret" not in record.getMessage())
    log.info("quiet")
    log.warning("secret")
    log.warning("loud")
    assert [each.message for each in sender.logs] == ["loud"]


def test_what_sending_itself_logs_is_never_sent() -> None:
    """The root logger has the handler, and httpx logs each request: no end otherwise."""
    root = logging.Logger("root")
    with scripted() as server:
        handler = LogfeedHandler(server.url, service_name="shop", limits=SenderLimits(linger_s=0.01))
        httpx_log = logging.getLogger("httpx")
        before = httpx_log.level
        console: list[str] = []
        shown = logging.Handler()
        shown.emit = lambda record: console.append(record.getMessage())  # type: ignore[method-assign]
        httpx_log.addHandler(shown)
        httpx_log.addHandler(handler)
        httpx_log.setLevel(logging.DEBUG)
        try:
            root.addHandler(handler)
            root.info("one")
            assert handler.sender.flush(DEADLINE_S)
            root.info("two")
            assert handler.sender.flush(DEADLINE_S)
            assert console == [], "nor does it fill the program's console"
            httpx_log.info("a request of the program's own")
            assert console == ["a request of the program's own"]
            assert handler.sender.flush(DEADLINE_S)
            handler.close()
        finally:
            httpx_log.removeHandler(handler)
            httpx_log.removeHandler(shown)
            httpx_log.setLevel(before)
        assert server.messages == ["one", "two", "a request of the program's own"]


def test_logs_of_the_clients_own_name_and_of_a_sending_thread_are_left_out(log: logging.Logger, sender: Kept) -> None:
    own = logging.Logger("logfeed_client.x")
    own.addHandler(log.handlers[0])
    own.error("no")
    sending.is_on = True
    try:
        log.error("no")
    finally:
        sending.is_on = False
    log.error("yes")
    assert [each.message for each in sender.logs] == ["yes"]


def test_a_configuration_of_logging_can_make_it() -> None:
    with scripted() as server:
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {
                    "logfeed": {
                        "class": "logfeed_client.LogfeedHandler",
                        "url": server.url,
                        "service_name": "shop",
                        "level": "INFO",
                    }
                },
                "loggers": {"test_of_configuration": {"handlers": ["logfeed"], "level": "DEBUG", "propagate": False}},
            }
        )
        logger = logging.getLogger("test_of_configuration")
        logger.debug("quiet")
        logger.info("loud")
        (handler,) = logger.handlers
        logger.removeHandler(handler)
        handler.close()
        assert server.messages == ["loud"]


def test_a_sender_is_closed_by_whoever_made_it(sender: Kept) -> None:
    LogfeedHandler(sender=sender).close()
    assert not sender._queue.is_closed
    handler = LogfeedHandler("http://127.0.0.1:9", service_name="shop")
    handler.close()
    assert handler.sender._queue.is_closed
    with pytest.raises(ValueError, match="service_name is needed"):
        LogfeedHandler("http://127.0.0.1:9")


# --- structlog


@pytest.fixture
def events(sender: Kept) -> Any:
    """A logger of structlog's, with the processor before its renderer."""
    rendered: list[str] = []
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        LogfeedProcessor(sender=sender, service_name="pay"),
        structlog.processors.JSONRenderer(),
    ]

    class Printer:
        name = "shop.pay"

        def msg(self, text: str) -> None:
            rendered.append(text)

        info = warning = error = debug = critical = exception = msg

    return structlog.wrap_logger(Printer(), processors=processors, wrapper_class=structlog.BoundLogger), rendered


def test_an_event_is_a_log_and_goes_on_to_the_renderer(events: Any, sender: Kept) -> None:
    logger, rendered = events
    with correlation("order-1"), bind(user="u-1"):
        logger.bind(amount=3).warning("paid", items=["a", "b"])
    found = sender.log
    assert (found.service_name, found.message, found.correlation_id) == ("pay", "paid", "order-1")
    assert level_name(found.level) == "WARN"
    metadata = {name: found.metadata[name] for name in ("logger", "user", "amount", "items")}
    assert metadata == {"logger": "shop.pay", "user": "u-1", "amount": 3, "items": ["a", "b"]}
    assert not {"event", "level", "timestamp"} & set(found.metadata)
    shown = json.loads(rendered[0])
    assert (shown["event"], shown["amount"]) == ("paid", 3)
    assert abs(found.timestamp - SystemClock().now_us()) < 60_000_000


def test_events_with_errors_and_ids_of_their_own(events: Any, sender: Kept) -> None:
    logger, _ = events
    try:
        raise KeyError("x")
    except KeyError as error:
        logger.error("failed", exc_info=True, correlation_id="own")
        logger.error("failed", exc_info=error)
        logger.error("failed", exc_info=sys.exc_info())
    assert [each.correlation_id for each in sender.logs] == ["own", None, None]
    assert {each.metadata["exception"]["type"] for each in sender.logs} == {"KeyError"}


@pytest.mark.parametrize("timestamp", ["2026-11-26T10:00:00Z", "2026-11-26T10:00:00", 1_795_687_200, 1_795_687_200.0])
def test_times_of_events_are_read(sender: Kept, timestamp: Any) -> None:
    LogfeedProcessor(sender=sender)(None, "info", {"event": "m", "timestamp": timestamp})
    assert json.loads(sender.lines[0])["timestamp"] == 1_795_687_200_000_000


def test_no_event_raises(sender: Kept) -> None:
    processor = LogfeedProcessor(sender=sender)
    for event in ({}, {"event": None}, {"event": "m", "timestamp": "noon", "level": 7, "x": Hostile()}):
        assert processor(object(), "msg", event) is event
    assert len(sender.logs) == 3
    processor(None, "info", {"event": Hostile()})
    assert sender.stats().dropped == {"failed": 1}


def test_a_record_of_the_programs_own_kind_makes_its_own_message(log: logging.Logger, sender: Kept) -> None:
    class Braces(logging.LogRecord):
        def getMessage(self) -> str:
            return str(self.msg).format(*self.args or ())

    log.handle(Braces("shop", logging.INFO, __file__, 1, "paid {} of {}", (3, 5), None))
    log.handle(logging.LogRecord("shop", logging.INFO, __file__, 1, "100 % of all", (), None))
    log.info("%(paid)d of all", {"paid": 3})
    log.info(ValueError("of %s"), "text")
    assert [found.message for found in sender.logs] == ["paid 3 of 5", "100 % of all", "3 of all", "of text"]
