"""The documents that describe records of derived topics, made of the one model of a log. `python -m cli.schema_documents
DIRECTORY` writes them.

log.schema.json   JSON Schema (2020-12) of a log, as pages and topics have it
asyncapi.json     AsyncAPI 3.0: topics, messages, headers
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from broker.topic_names import ERRORS_TOPIC, SERVICE_TOPICS
from schemas.pages import LogModel

LOG_SCHEMA: Final = "log.schema.json"
ASYNCAPI: Final = "asyncapi.json"
_NUMBER: Final = {"type": "string", "pattern": "^[0-9]{1,19}$"}


def log_schema() -> dict[str, Any]:
    """JSON Schema of a log."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:logfeed:schema:log",
        **LogModel.model_json_schema(),
    }


def asyncapi() -> dict[str, Any]:
    """The topics' document."""
    headers = {
        "type": "object",
        "required": ["v", "id", "partition", "offset", "index"],
        "properties": {
            "v": {"type": "string", "const": "1", "description": "Version of these headers."},
            "id": {**_NUMBER, "description": "The log's id: the same however often it comes."},
            "partition": {**_NUMBER, "description": "Of the logs' topic, where the log was read."},
            "offset": {**_NUMBER, "description": "There."},
            "index": {**_NUMBER, "description": "The log's place in that record, from 0."},
        },
    }
    message = {
        "name": "log",
        "title": "One log",
        "summary": "At least once: leave out ids that you have. Records of one service stay in order.",
        "contentType": "application/json",
        "headers": headers,
        "payload": LogModel.model_json_schema(),
        "bindings": {"kafka": {"key": {"type": "string", "description": "The service."}, "bindingVersion": "0.5.0"}},
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Logfeed: derived topics",
            "version": version("logfeed"),
            "description": "One log per record, for subscribers. See docs/topics.md.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "errors": _channel(ERRORS_TOPIC, "ERROR and above of all services."),
            "service": _channel(
                f"{SERVICE_TOPICS}{{service}}",
                "Logs of one service that `routing.services` names.",
                service="The service's name, in which `-` is written `--`, `_` is `-u` and `/` is `-s`.",
            ),
            "route": _channel("{topic}", "Logs that a route of the settings chooses.", topic="`routes.NAME.topic`."),
        },
        "operations": {
            f"receive{name.capitalize()}": {"action": "receive", "channel": {"$ref": f"#/channels/{name}"}}
            for name in ("errors", "service", "route")
        },
        "components": {"messages": {"log": message}},
    }


def render(document: dict[str, Any]) -> str:
    """A document as it is committed."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _channel(address: str, description: str, **parameters: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "address": address,
        "description": description,
        "messages": {"log": {"$ref": "#/components/messages/log"}},
    }
    if parameters:
        found["parameters"] = {name: {"description": text} for name, text in parameters.items()}
    return found


if __name__ == "__main__":
    for _name, _document in ((LOG_SCHEMA, log_schema()), (ASYNCAPI, asyncapi())):
        Path(sys.argv[1], _name).write_text(render(_document), encoding="utf-8")
