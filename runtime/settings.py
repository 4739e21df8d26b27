"""Settings: frozen, typed, documented field by field; flags > environment > file > default.

A part defines a `Section` in its own `settings.py`; `cli/settings.py` composes them into one root. The environment
spells a field `LOGFEED_SECTION__FIELD`; the file is YAML with the same nesting. Unknown names are errors: a setting that
is silently ignored is worse than none. A test fails for a field without a description.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import ConfigurationError

ENVIRONMENT_PREFIX: Final = "LOGFEED_"
NOT_SETTINGS: Final = ("LOGFEED_TEST_", "LOGFEED_CACHE", "LOGFEED_CONFIG", "LOGFEED_URL")
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
    merged: dict[str, Any] = {}
    if file is not None:
        _merge(merged, _read_file(file))
    _merge(merged, _from_environment(os.environ if environment is None else environment))
    for name, value in (flags or {}).items():
        if value is not None:
            _merge(merged, _nest(name.split("."), value))
    try:
        return root.model_validate(merged)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, file)) from error


def _read_file(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: is no readable YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file}: expected a mapping of sections, found {type(content).__name__}")
    return content


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name, text in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and not name.startswith(NOT_SETTINGS):
            path = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
            _merge(merged, _nest(path, _environment_value(text)))
    return merged


def _environment_value(text: str) -> Any:
    """Lists and mappings are written as JSON (or YAML flow) in the environment; everything else is text."""
    if text[:1] in "[{":
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
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


def _explain(error: ValidationError, file: Path | None) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "settings"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: there is no such setting (environment: {_variable(where)})")
        else:
            lines.append(f"{where}: {problem['msg']}, got {problem['input']!r:.200}")
    source = f" ({file})" if file else ""
    return f"the configuration{source} is not valid:\n  " + "\n  ".join(lines)


def _variable(dotted: str) -> str:
    return ENVIRONMENT_PREFIX + dotted.upper().replace(".", "__")
