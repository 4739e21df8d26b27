"""A program that logs through OpenTelemetry's SDK as its users write it; all else comes from the environment."""

from __future__ import annotations

import logging

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor


def main() -> None:
    provider = LoggerProvider()
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    logger = logging.getLogger("checkout")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(LoggingHandler(logger_provider=provider))
    for number in range(50):
        logger.info("order %d paid", number, extra={"order": number, "card": "visa"})
    logger.warning("zażółć 😀")
    try:
        raise ValueError("declined")
    except ValueError:
        logger.exception("payment failed")
    provider.shutdown()


if __name__ == "__main__":
    main()
