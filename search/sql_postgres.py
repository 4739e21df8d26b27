"""Compiles a predicate to a WHERE expression for PostgreSQL (15 or newer, database encoding UTF8).

Columns: timestamp timestamptz, id bigint, level smallint, service_name, correlation_id, message text, metadata jsonb. The
database's locale does not matter: wherever it could, the expression says COLLATE "C". Parameters are psycopg's (%s), so
that indexes are used as with constants when the statement has no generic plan.

What decides the speed of a scan over text, per row of 170 characters (PostgreSQL 18.4, 1,000,000 rows of real messages,
one core; LIKE with the right case is 1.0): `strpos(lower(m), needle)` 1.2, `lower(m) LIKE` 1.6, `ILIKE` 1.7,
`strpos(lower(m COLLATE pg_c_utf8), needle)` 1.8, a regular expression of classes 3, `translate` to lower case 60. So text
in which only ASCII letters have two cases is sought with strpos under "C", where lower maps A-Z and nothing else; other
text as a regular expression of its letters, which depends on no Unicode version. A regular expression that needs certain
text to match has that sought first.

Half of what strpos(lower()) costs is lower(), which copies every message. Where the text has a few characters in a row that
have no case (digits, punctuation), they are sought in the message as it is first: the whole then costs 0.6 of it on messages
of 90 characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

from search.fields import key_chains
from search.letters import VARIANTS, fold, is_bytewise
from search.numbers import json_text, parse_number
from search.predicate import (
    And,
    Contains,
    CorrelationIs,
    CorrelationPresent,
    Everything,
    FieldPresent,
    IdRange,
    LevelIn,
    Matches,
    MetaCompare,
    MetaEquals,
    MinLevel,
    Not,
    Nothing,
    Or,
    Predicate,
    ServiceIn,
    TimeRange,
    cost_of,
)
from search.regex import literal_pattern
from search.regex_dialects import required_text, to_postgres
from search.sql import Columns, Sql, joined

_DEFAULT: Final = Columns()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CASELESS: Final = re.compile(f"[^{''.join(map(re.escape, map(chr, sorted(VARIANTS))))}]+")
"""Characters that are the same letter as no other."""
_CASELESS_CHARS_MIN: Final = 3
"""Fewer are in too many messages for looking at them first to pay."""


def compile_postgres(predicate: Predicate, columns: Columns = _DEFAULT) -> Sql:
    """The expression that is TRUE of matching rows and FALSE of all others."""
    match predicate:
        case Everything():
            return Sql("TRUE")
        case Nothing():
            return Sql("FALSE")
        case And(children):
            return _compound("AND", children, columns) if children else Sql("TRUE")
        case Or(children):
            return _compound("OR", children, columns) if children else Sql("FALSE")
        case Not(child):
            inner = compile_postgres(child, columns)
            return Sql(f"(NOT {inner.text})", inner.params)
        case ServiceIn(names, prefixes):
            return _service(names, prefixes, columns.service_name)
        case LevelIn(ranges):
            parts = [Sql(f"({columns.level} BETWEEN %s::smallint AND %s::smallint)", pair) for pair in ranges]
            return joined("OR", parts) if parts else Sql("FALSE")
        case MinLevel(severity):
            return Sql(f"({columns.level} >= %s::smallint)", (severity,))
        case TimeRange(start, end):
            bounds = ((">=", start), ("<", end))
            return _range(columns.timestamp, [(op, _moment(at)) for op, at in bounds if at is not None], "timestamptz")
        case IdRange(first, last):
            return _range(
                columns.id, [(op, at) for op, at in ((">=", first), ("<=", last)) if at is not None], "bigint"
            )
        case CorrelationIs(correlation_id):
            column = columns.correlation_id
            return Sql(f"({column} IS NOT NULL AND {column} = %s::text)", (correlation_id,))
        case CorrelationPresent():
            return Sql(f"({columns.correlation_id} IS NOT NULL)")
        case Contains(text):
            return _contains(text, columns.message)
        case Matches(pattern):
            expression = _matches(to_postgres(pattern), columns.message)
            required = required_text(pattern)
            return joined("AND", [_contains(required, columns.message), expression]) if required else expression
        case FieldPresent(path):
            return _on_field(path, columns.metadata, "COALESCE(jsonb_typeof({0}) <> 'null', FALSE)")
        case MetaEquals(path, text):
            return _equals(path, text, columns.metadata)
        case MetaCompare(path, op, number):
            test = f"(CASE WHEN jsonb_typeof({{0}}) = 'number' THEN ({{0}})::numeric {op} %s::numeric ELSE FALSE END)"
            return _on_field(path, columns.metadata, test, json_text(number))


def metadata_keys(predicate: Predicate) -> set[str]:
    """The top-level keys of metadata that an index has to know for `indexable_metadata` to use all that it can."""
    match predicate:
        case MetaEquals(path, _):
            return {keys[0] for keys in key_chains(path)}
        case And(children) | Or(children):
            return set().union(*map(metadata_keys, children))
    return set()


def indexable_metadata(
    predicate: Predicate, column: str = "metadata", *, keys: Collection[str] | None = None
) -> Sql | None:
    """A condition that every match meets and that a GIN index on the column (jsonb_path_ops) answers; None when there is
    none. It is not the predicate: other rows meet it too. keys: the top-level keys that the index knows; None: all."""
    match predicate:
        case MetaEquals(path, text):
            if keys is not None and any(chain[0] not in keys for chain in key_chains(path)):
                return None
            documents = [
                f"{''.join(f'{{{json.dumps(key, ensure_ascii=False)}: ' for key in keys)}{value}{'}' * len(keys)}"
                for keys in key_chains(path)
                for value in _equal_values(text)
            ]
            return joined("OR", [Sql(f"({column} @> %s::jsonb)", (document,)) for document in documents])
        case And(children):
            parts = [part for child in children if (part := indexable_metadata(child, column, keys=keys)) is not None]
            return joined("AND", parts) if parts else None
        case Or(children) if children:
            alternatives = [indexable_metadata(child, column, keys=keys) for child in children]
            known = [part for part in alternatives if part is not None]
            return joined("OR", known) if len(known) == len(alternatives) else None
    return None


def _compound(word: str, children: tuple[Predicate, ...], columns: Columns) -> Sql:
    # Equal estimates keep their order in PostgreSQL: cheap tests first.
    return joined(word, [compile_postgres(child, columns) for child in sorted(children, key=cost_of)])


def _service(names: frozenset[str], prefixes: frozenset[str], column: str) -> Sql:
    if len(names) == 1:  # plain equality: an index on (service_name, timestamp, id) then also gives the order
        parts = [Sql(f"({column} = %s::text)", (*names,))]
    else:
        parts = [Sql(f"({column} = ANY(%s::text[]))", (sorted(names),))] if names else []
    parts += [Sql(f"({column} ^@ %s::text)", (prefix,)) for prefix in sorted(prefixes)]
    return joined("OR", parts) if parts else Sql("FALSE")


def _range(column: str, bounds: list[tuple[str, object]], sql_type: str) -> Sql:
    if not bounds:
        return Sql("TRUE")
    return joined("AND", [Sql(f"({column} {op} %s::{sql_type})", (value,)) for op, value in bounds])


def _moment(timestamp_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=timestamp_us)


def _contains(text: str, column: str) -> Sql:
    caseless = max(_CASELESS.findall(text), key=len, default="")
    as_it_is = Sql(f'(strpos({column} COLLATE "C", %s::text) > 0)', (caseless,))
    if caseless == text != "":
        return as_it_is
    if is_bytewise(text):
        exact = Sql(f'(strpos(lower({column} COLLATE "C"), %s::text) > 0)', (fold(text),))
    else:
        exact = _matches(to_postgres(literal_pattern(text)), column)
    return joined("AND", [as_it_is, exact]) if len(caseless) >= _CASELESS_CHARS_MIN else exact


def _matches(expression: str, column: str) -> Sql:
    return Sql(f'({column} COLLATE "C" ~ %s::text)', (expression,))


def _on_field(path: tuple[str, ...], metadata: str, test: str, *params: object) -> Sql:
    """The test on any value that the path means. In `test` {0} stands for the value (a jsonb expression or NULL); it may
    come before the first placeholder of `params` only."""
    parts = []
    for keys in key_chains(path):
        value = f"({metadata}{' -> %s::text' * len(keys)})"
        parts.append(Sql(test.format(value), keys * test.count("{0}") + params))
    return joined("OR", parts)


def _equals(path: tuple[str, ...], text: str, metadata: str) -> Sql:
    """Any value that the path means equals the text. jsonb compares strings by bytes and numbers as numeric.

    A text that only a string can equal is compared as text, which takes a fifth of the time: a value that is taken out of
    metadata as jsonb is copied first. What else has this text, an object's say, is told by its type.
    """
    values = _equal_values(text)
    if len(values) > 1:
        return _on_field(path, metadata, "COALESCE({0} = ANY(%s::jsonb[]), FALSE)", values)
    parts = []
    for keys in key_chains(path):
        within = f"{metadata}{' -> %s::text' * (len(keys) - 1)}"
        test = f"COALESCE({within} ->> %s::text = %s::text AND jsonb_typeof({within} -> %s::text) = 'string', FALSE)"
        parts.append(Sql(test, (*keys, text, *keys)))
    return joined("OR", parts)


def _equal_values(text: str) -> list[str]:
    """The JSON values that equal the text, as JSON."""
    values = [json.dumps(text, ensure_ascii=False)]
    if text in ("true", "false"):
        values.append(text)
    elif (number := parse_number(text)) is not None:
        values.append(json_text(number))
    return values
