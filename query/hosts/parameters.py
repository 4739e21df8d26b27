"""Parameters of questions to hosts. What goes to the agent is bounded here, and means what the agent makes of it."""

from __future__ import annotations

from typing import Final

from query.hosts.agents import Asked
from query.hosts.records import Form
from query.hosts.service import FileQuestion
from query.hosts.settings import HostSettings
from query.params import LIMIT_DEFAULT, LIMIT_MAX, Items, Parameter, Values
from schemas.hosts import FILES_MAX
from search.params import ParameterError

LINES_MAX: Final = 100_000
LINES_DEFAULT: Final = 100
KEYWORDS_MAX: Final = 20
TEXT_CHARS_MAX: Final = 1_000
NAME_CHARS_MAX: Final = 1_024
_CURSOR_CHARS_MAX: Final = 2_000
_FLAGS: Final = ("case", "across_lines", "follow")
_FLAG: Final = {"type": "boolean", "default": False}
_CURSOR: Final = Parameter("cursor", "`next_cursor` of the answer before.")

HOSTS: Final = (
    Parameter(
        "limit",
        "Most hosts in the answer.",
        {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
    ),
    _CURSOR,
)
FILES: Final = (
    Parameter(
        "limit",
        "Most files that the agent looks at.",
        {"type": "integer", "minimum": 1, "maximum": FILES_MAX, "default": FILES_MAX},
    ),
    _CURSOR,
)
READ: Final = (
    Parameter(
        "n",
        "Most lines: the newest that match, newest first; with `follow` the newest to begin with, 0 for none.",
        {"type": "integer", "minimum": 0, "maximum": LINES_MAX, "default": LINES_DEFAULT},
    ),
    Parameter("keyword", "The line contains this text. Several: all of them.", is_list=True, example="timeout"),
    Parameter("regex", "The line matches this regular expression (RE2) somewhere.", example="status=5\\d\\d"),
    Parameter("case", "Letters must be in the same case.", _FLAG),
    Parameter("across_lines", "Keywords may be in different lines.", _FLAG),
    Parameter("follow", "Go on with lines as they are written.", _FLAG),
    Parameter(
        "format",
        "`ndjson`: a record a line, the end as the last one. `text`: the lines alone, the end as the last one.",
        {"type": "string", "enum": [form.value for form in Form], "default": Form.NDJSON.value},
    ),
    Parameter("max_s", "Most seconds; then it ends with the status `deadline`.", {"type": "integer", "minimum": 1}),
)


def parse_hosts(items: Items) -> tuple[int, str | None]:
    """(limit, cursor) of a list of hosts. Raises ParameterError."""
    values = Values(items, HOSTS)
    return values.whole_number("limit", least=1, most=LIMIT_MAX, default=LIMIT_DEFAULT), values.token()


def parse_files(items: Items) -> Asked:
    """What the agent is asked for of a list of files. Raises ParameterError."""
    values = Values(items, FILES)
    asked = [("limit", str(values.whole_number("limit", least=1, most=FILES_MAX, default=FILES_MAX)))]
    cursor = values.token()
    if cursor is not None:
        asked.append(("cursor", _text("cursor", cursor, _CURSOR_CHARS_MAX)))
    return asked


def parse_read(name: str, items: Items, settings: HostSettings) -> FileQuestion:
    """name: of the file. Raises ParameterError."""
    values = Values(items, READ)
    asked: list[tuple[str, str]] = []
    flags = {flag: _flag(values, flag) for flag in _FLAGS}
    lines = values.whole_number("n", least=0 if flags["follow"] else 1, most=LINES_MAX, default=LINES_DEFAULT)
    asked.append(("n", str(lines)))
    keywords = values.all("keyword")
    if len(keywords) > KEYWORDS_MAX:
        raise ParameterError("keyword", f"expected at most {KEYWORDS_MAX}, got {len(keywords)}")
    asked += [("keyword", _text("keyword", keyword, TEXT_CHARS_MAX)) for keyword in keywords]
    regex = values.one("regex")
    if regex is not None:
        asked.append(("regex", _text("regex", regex, TEXT_CHARS_MAX)))
    asked += [(flag, "true") for flag, is_set in flags.items() if is_set]
    most_s = settings.follow_s_max if flags["follow"] else settings.read_s_max
    if values.one("max_s") is not None:
        most_s = values.whole_number("max_s", least=1, most=most_s, default=most_s)
        asked.append(("max_s", str(most_s)))
    return FileQuestion(_file_name(name), asked, _form(values.one("format")), float(most_s))


def _file_name(name: str) -> str:
    """A path under a root of the agent's, which it checks by itself; here for what it becomes in an address."""
    parts = name.split("/")
    if not 1 <= len(name) <= NAME_CHARS_MAX or not name.isprintable() or not {"", ".", ".."}.isdisjoint(parts):
        raise ParameterError("name", "expected the name of a file as the list of files has it")
    return name


def _form(text: str | None) -> Form:
    try:
        return Form(text or Form.NDJSON)
    except ValueError:
        raise ParameterError("format", f"expected {' or '.join(Form)}, got {(text or '')[:40]!r}") from None


def _flag(values: Values, name: str) -> bool:
    text = values.one(name)
    if text not in (None, "true", "false"):
        raise ParameterError(name, f"expected true or false, got {text[:40]!r}")
    return text == "true"


def _text(parameter: str, text: str, most: int) -> str:
    if not 1 <= len(text) <= most:
        raise ParameterError(parameter, f"expected 1..{most} characters, got {len(text)}")
    return text
