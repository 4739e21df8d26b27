"""What the OpenAPI document says of problems is what is answered."""

from __future__ import annotations

import json

from cli import openapi
from query.problems import PROBLEM_TYPE, problem_of
from store.segments.format import SegmentDamaged


def test_a_damaged_file_is_documented_wherever_files_are_read() -> None:
    answered = json.loads(bytes(problem_of(SegmentDamaged("s.parquet", "it cannot be decoded")).body))
    paths = openapi.document()["paths"]
    for path in ("/logs", "/logs/{log_id}", "/logs/{log_id}/context", "/correlations/{correlation_id}/logs"):
        responses = paths[f"/api/v1{path}"]["get"]["responses"]
        example = responses[str(answered["status"])]["content"][PROBLEM_TYPE]["example"]
        assert (example["type"], example["title"]) == (answered["type"], answered["title"])
