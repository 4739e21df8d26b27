"""Rules in YAML: one file or every *.yaml and *.yml of a directory. Each mistake is told with its line and column."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from alerts.rules import RuleDocument, check_together
from schemas.errors import ConfigurationError

FILE_BYTES_MAX: Final = 1024 * 1024
PROBLEMS_MAX: Final = 20
"""Of one document, told at once."""
_NAME_CHARS_MAX: Final = 40
FILES_MAX: Final = 200
_DEPTH_MAX: Final = 20
Place = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Refuses keys that stand twice: the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = getattr(key, "value", None)
            if isinstance(name, str) and name in seen:
                raise yaml.MarkedYAMLError(problem=f"{name!r:.80} stands here twice", problem_mark=key.start_mark)
            seen.add(name if isinstance(name, str) else None)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
            raise yaml.MarkedYAMLError(problem="aliases are not taken here", problem_mark=event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


def read_rules(path: Path) -> list[RuleDocument]:
    """The rules of a file, or of the files of a directory in order of their names.

    Raises ConfigurationError with a line for each mistake: `file:line:column: what was expected`.
    """
    problems: list[str] = []
    found: list[RuleDocument] = []
    where: dict[str, str] = {}
    for file in _files(path):
        try:
            text = _text(file)
        except ConfigurationError as error:
            problems.append(str(error))
            continue
        rules, wrong = parse_rules(text, str(file))
        problems += wrong
        for line, rule in rules:
            here = f"{file}:{line}"
            if rule.name in where:
                problems.append(f"{here}: there is a rule {rule.name} already, in {where[rule.name]}")
            where.setdefault(rule.name, here)
            found.append(rule)
    if not problems:
        try:
            check_together(found)
        except ValueError as error:
            problems.append(f"{path}: {error}")
    if problems:
        raise ConfigurationError("\n".join(problems))
    return found


def parse_rules(text: str, name: str) -> tuple[list[tuple[int, RuleDocument]], list[str]]:
    """(line, rule) of each good rule of one file's text, and what is wrong with the others."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            content = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        stands = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else name
        return [], [f"{stands}: {error.problem or error.context}"]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return [], [f"{name}: is no readable YAML: {' '.join(str(error).split())[:300]}"]
    if content is None:
        return [], [f"{name}: is empty, expected `rules:` with a list of rules"]
    marks = dict(_marks(node))
    if not isinstance(content, dict) or set(content) != {"rules"} or not isinstance(content["rules"], list):
        return [], [f"{name}:1:1: expected `rules:` with a list of rules, and nothing beside it"]
    rules: list[tuple[int, RuleDocument]] = []
    problems: list[str] = []
    for index, one in enumerate(content["rules"]):
        place: Place = ("rules", index)
        try:
            rules.append((_at(marks, place)[0], RuleDocument.model_validate(one)))
        except ValidationError as error:
            for place_of, sentence in explain(error):
                line, column = _at(marks, (*place, *place_of))
                field = ".".join(map(str, place_of))
                problems.append(f"{name}:{line}:{column}: {field + ': ' if field else ''}{sentence}")
    return rules, problems


def explain(error: ValidationError) -> Iterator[tuple[Place, str]]:
    """(where, what was expected) of the first PROBLEMS_MAX mistakes in a document; nothing that was written elsewhere is shown.

    A body may hold tens of thousands of them, and guessing what was meant costs 0.1 ms each.
    """
    for problem in error.errors(include_url=False)[:PROBLEMS_MAX]:
        place = tuple(problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            known = _fields_at(place[:-1])
            near = difflib.get_close_matches(str(place[-1])[:_NAME_CHARS_MAX], known, 1)
            message = "there is no such field" + (f": did you mean {near[0]}?" if near else "")
        elif not isinstance(problem["input"], Mapping | list | RuleDocument):
            message += f", got {problem['input']!r:.100}"
        yield place, message


def _fields_at(place: Place) -> list[str]:
    model: Any = RuleDocument  # models of fields, found by their annotations
    for step in place:
        names = {field.alias or name: field for name, field in model.model_fields.items()}
        field = names.get(str(step))
        options = getattr(field.annotation, "__args__", (field.annotation,)) if field is not None else ()
        model = next((option for option in options if hasattr(option, "model_fields")), None)
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _marks(node: Any, place: Place = ()) -> Iterator[tuple[Place, yaml.Mark]]:
    yield place, node.start_mark
    if len(place) > _DEPTH_MAX:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            yield from _marks(value, inner)
            yield inner, key.start_mark
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _marks(value, (*place, index))


def _at(marks: Mapping[Place, yaml.Mark], place: Place) -> tuple[int, int]:
    """Line and column, from 1, of the nearest thing that is there."""
    while place not in marks and place:
        place = place[:-1]
    mark = marks[place]
    return mark.line + 1, mark.column + 1


def _files(path: Path) -> Iterable[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(
        file for file in path.iterdir() if file.suffix in (".yaml", ".yml") and not file.name.startswith(".")
    )
    if len(files) > FILES_MAX:
        raise ConfigurationError(f"{path}: expected at most {FILES_MAX} files of rules, got {len(files)}")
    return files


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise ConfigurationError(f"{file}: has more than {FILE_BYTES_MAX} bytes, which is as many as are read")
        return content.decode()
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: is no UTF-8 text") from error
