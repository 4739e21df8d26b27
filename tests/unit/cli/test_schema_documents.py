"""The documents of derived topics are those of the code, and valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from cli.schema_documents import ASYNCAPI, LOG_SCHEMA, asyncapi, log_schema, render
from schemas.pages import log_json
from schemas.record import Log
from schemas.topics import Source, record_headers

ROOT = Path(__file__).resolve().parents[3]
LOG = Log(382110771345817600, 1_800_000_000_123_456, 17, "pay/api", "it failed", None, {"n": 2**70, "deep": {"a": [1]}})


def shown(log: Log) -> Any:  # JSON
    return json.loads(orjson.dumps(log_json(log)))


@pytest.mark.parametrize(("name", "document"), [(LOG_SCHEMA, log_schema()), (ASYNCAPI, asyncapi())])
def test_documents_are_those_of_the_code(name: str, document: dict[str, Any]) -> None:
    committed = (ROOT / "schemas" / name).read_text(encoding="utf-8")
    assert committed == render(document), "run `make openapi`"


def test_the_schema_of_a_log_takes_what_topics_have_and_nothing_else() -> None:
    jsonschema.Draft202012Validator.check_schema(log_schema())
    validator = jsonschema.Draft202012Validator(log_schema())
    validator.validate(shown(LOG))
    validator.validate(shown(Log(1, -62_135_596_800_000_000, 1, "a", "", "order-1", {})))
    wrong: list[dict[str, Any]] = [{"id": 7}, {"severity": 25}, {"more": 1}, {"metadata": []}, {"message": None}]
    for broken in wrong:
        assert list(validator.iter_errors(shown(LOG) | broken)), broken


def test_the_topics_document_is_asyncapi_and_says_what_records_are() -> None:
    schema = json.loads((ROOT / "tests/data/asyncapi-3.0.0.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    document = asyncapi()
    assert not [error.message for error in validator.iter_errors(document)]
    wrong = json.loads(json.dumps(document))
    wrong["operations"]["receiveErrors"]["action"] = "listen"
    wrong["channels"]["errors"]["addres"] = "x"
    assert list(validator.iter_errors(wrong))
    message = document["components"]["messages"]["log"]
    headers = {name: value.decode() for name, value in record_headers(LOG.id, Source(3, 12, 0))}
    jsonschema.validate(headers, message["headers"])
    jsonschema.validate(shown(LOG), message["payload"])
    assert set(headers) == set(message["headers"]["properties"])
