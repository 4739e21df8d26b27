"""The parameters of exports: those of pages, without what divides them into pages."""

from __future__ import annotations

from typing import Final

from query.export.service import ExportQuestion, Format
from query.params import FIND, LIMIT_MAX, Items, Parameter, Values, find_question
from schemas.record import is_service_name
from search.language import TemplateText, no_template
from search.params import ParameterError

EXPORT: Final = (
    *(parameter for parameter in FIND if parameter.name not in ("around", "limit", "cursor")),
    Parameter(
        "format",
        "`ndjson`: one JSON object a line. `csv`: RFC 4180, with a header; what a spreadsheet would take for a formula gets a"
        " `'` before it.",
        {"type": "string", "enum": [str(each) for each in Format], "default": str(Format.NDJSON)},
    ),
)


def parse_export(items: Items, *, now_us: int, template_text: TemplateText = no_template) -> ExportQuestion:
    """The question of `GET /api/v1/export`. template_text: see search.language.parse. Raises ParameterError."""
    values = Values(items, EXPORT)
    format = values.one("format") or Format.NDJSON.value
    if format not in list(Format):
        raise ParameterError("format", f"expected {' or '.join(Format)}, got {format[:40]!r}")
    question = find_question(values, now_us=now_us, template_text=template_text, limit=LIMIT_MAX)
    names = values.all("service_name")
    subject = names[0] if len(names) == 1 and is_service_name(names[0]) else None
    return ExportQuestion(question, Format(format), subject)
