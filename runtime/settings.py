"""Settings: frozen, typed, documented field by field; flags > environment > file > default.

A part defines a `Section` in its own `settings.py`; `cli/settings.py` composes them into one root. The environment
spells a field `LOGFEED_SECTION__FIELD`, and an empty variable counts as none; the file is YAML with the same nesting.
Unknown names are errors: a setting that is silently ignored is worse than none. Errors never show what may be secret. A
test fails for a field without a description.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from schemas.errors import ConfigurationError

ENVIRONMENT_PREFIX: Final = "LOGFEED_"
NOT_SETTINGS: Final = (
    "LOGFEED_TEST_",
    "LOGFEED_CACHE",
    "LOGFEED_CONFIG",
    "LOGFEED_URL",
    "LOGFEED_API_KEY",
    "LOGFEED_CA_FILE",
)
"""Variables with our prefix that are no settings: tests, caches, where the file is, where the CLI asks."""


class Section(BaseModel):
    """Base of every group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


Root = TypeVar("Root", bound=Section)


def load(
    root: type[Root],
    *,
    file: Path | None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Root:
    """The settings in force. flags: dotted name -> value; None values are left out.

    Raises ConfigurationError with one line per problem: where it stands, what was expected, what was found.
    """
    variables = os.environ if environment is None else environment
    merged: dict[str, Any] = {}
    if file is not None:
        _merge(merged, _read_file(file))
    _merge(merged, _from_environment(variables))
    for name, value in (flags or {}).items():
        if value is not None:
            _merge(merged, _nest(name.split("."), value))
    try:
        return root.model_validate(merged)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, root, file, variables)) from error


def every_field(root: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted name, field) of every setting below a root, in order; sections themselves are left out."""
    for name, field in root.model_fields.items():
        if inner := _section(field):
            yield from every_field(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def variable_of(dotted: str) -> str:
    """The environment's spelling of a setting."""
    return ENVIRONMENT_PREFIX + dotted.upper().replace(".", "__")


def _section(field: FieldInfo) -> type[Section] | None:
    inner = field.annotation
    return inner if isinstance(inner, type) and issubclass(inner, Section) else None


def _read_file(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: is no readable YAML: {error}") from error
    except RecursionError as error:
        raise ConfigurationError(f"{file}: is nested too deeply to be settings") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file}: expected a mapping of sections, found {type(content).__name__}")
    return content


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name, text in sorted(environment.items()):
        if text and name.startswith(ENVIRONMENT_PREFIX) and not name.startswith(NOT_SETTINGS):
            path = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
            _merge(merged, _nest(path, _environment_value(text)))
    return merged


def _environment_value(text: str) -> Any:
    """Lists and mappings are written as JSON (or YAML flow) in the environment; everything else is text."""
    if text.startswith(("[", "{")):
        try:
            return yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError):
            return text
    return text


def _nest(path: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    nested: dict[str, Any] = value
    return nested


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _explain(error: ValidationError, root: type[Section], file: Path | None, variables: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "settings"
        source = f" ({variable_of(where)})" if variable_of(where) in variables else ""
        lines.append(f"{where}{source}: {_sentence(problem, where, root)}")
    source = f" ({file})" if file else ""
    return f"the configuration{source} is not valid:\n  " + "\n  ".join(lines)


def _sentence(problem: ErrorDetails, where: str, root: type[Section]) -> str:
    if problem["type"] == "extra_forbidden":
        meant = _nearest(where, root)
        return "there is no such setting" + (f": did you mean {meant}?" if meant else "")
    fields = dict(every_field(root))
    if problem["type"] in ("model_type", "dict_type") and where not in fields:
        return "is a section, not a value: set the settings inside it"
    message = problem["msg"].removeprefix("Value error, ")
    found = problem["input"]
    # Sections may hold secrets, and a rule over several settings names those it means.
    if isinstance(found, (Mapping, Section)) or "Secret" in str(fields.get(where)):
        return message
    return f"{message}, got {found!r:.200}"


def _nearest(where: str, root: type[Section]) -> str | None:
    """The setting that was probably meant: close in its own section, else of the same name in another, else close."""
    known = [name for name, _ in every_field(root)] + list(root.model_fields)
    parent, _, last = where.rpartition(".")
    siblings = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == parent}
    if near := difflib.get_close_matches(last, siblings, 1):
        return siblings[near[0]]
    namesakes = [name for name in known if name.rpartition(".")[2] == last]
    return next(iter(namesakes or difflib.get_close_matches(where, known, 1)), None)
