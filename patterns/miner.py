"""A streaming template miner after Drain: each line gets its template at once, in one pass.

Source: He, Zhu, Zheng, Lyu, "Drain: An Online Log Parsing Approach with Fixed Depth Tree", ICWS 2017. As there, a line is
masked, families of lines are kept by the number of tokens and the first token, and a line joins the most similar family or
begins one. Unlike there, words that differ stay different templates until a position had many (families.py): which of four
states a machine entered is the message, which of a hundred users logged in is not.

Ids: a template's id is a hash of its text, the same in every process and after every restart. When a family becomes more
general, its templates merge into more general ones with other ids: each such step is reported (`Changes.merged`), so that
counts under the old id can be added to the new one. Merges never lead back. A template that was evicted has its id again when
it comes again.

Bounded: `Limits`. Past them the templates that were used longest ago go, a tenth at a time, and are counted
(`evicted_templates`); nothing is refused and nothing raises, whatever the messages are. The same lines in the same order give
the same templates. One owner, no locks, no input or output.

Cost: 1.2 µs a line whose shape was seen, 3 µs one with other numbers of digits, 6.5 µs on average for the lines of
bench section `patterns`; 0.5 ms at worst, for a line of 48 words that was never seen and is like none of 64 families.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from operator import attrgetter
from typing import Final

import msgspec

from patterns.families import (
    FAMILY_TEMPLATES_MAX,
    SIMILARITY_MIN,
    VALUES_MAX,
    Family,
    Position,
    Template,
    Tokens,
    Wild,
    id_of,
    rigid_of,
    text_of,
)
from patterns.masks import ANY, CHARS_MAX, TEXT_BYTES_MAX, TOKENS_MAX, Masker, has_wildcard, shape_of
from schemas.errors import InvalidInput

SNAPSHOT_VERSION: Final = 1
FIRST_TOKENS_MAX: Final = 64
"""First tokens, for each service and length, with families of their own; lines that begin with others share theirs, so that a
variable first word does not begin a family each time."""
BUCKET_FAMILIES_MAX: Final = 64
"""Families that a line is compared with, at most."""
_SHAPES_CACHED_MAX: Final = 20_000
_LINES_CACHED_MAX: Final = 10_000
"""Shapes, and masked lines, whose template is looked up at once: 8 MB and 24 MB at most. They begin anew when full: lines that
come often are back at once."""
_CACHED_SHAPE_BYTES_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Limits:
    """Most templates and services. 10,000 templates of 20 words that are in families of their own, with all caches full, took
    63 MiB; a snapshot of them is 4 MB."""

    templates: int = 10_000
    service_templates: int = 1_000
    services: int = 1_000

    def __post_init__(self) -> None:
        if min(self.templates, self.service_templates, self.services) < 1:
            raise ValueError(f"limits must be at least 1, got {self}")


class InvalidSnapshot(InvalidInput):
    """The bytes are not a snapshot of a miner."""


class Created(msgspec.Struct, frozen=True):
    """A service has lines of this template (again)."""

    service: str
    id: int
    text: str


class Merged(msgspec.Struct, frozen=True):
    """In this service, lines that had the first id have the second from now on, whose text is more general."""

    service: str
    id: int
    into_id: int


class Changes(msgspec.Struct, frozen=True):
    """What became of templates, oldest first. lost: how many more there were than are kept until they are asked for."""

    created: list[Created]
    merged: list[Merged]
    lost: int

    def into(self) -> dict[tuple[str, int], int]:
        """(service, id) -> id that it was merged into: what `counts.PatternCounts.drain` takes."""
        return {(change.service, change.id): change.into_id for change in self.merged}


@dataclass(slots=True, eq=False)
class _Service:
    name: str
    buckets: dict[tuple[int, bytes], list[Family]] = field(default_factory=dict)
    first_tokens: dict[int, int] = field(default_factory=dict)
    """Number of tokens -> how many buckets of their own there are."""
    shapes: dict[bytes, Template] = field(default_factory=dict)
    lines: dict[Tokens, Template] = field(default_factory=dict)
    templates: int = 0
    used: int = 0


class _FamilySnapshot(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    bucket: tuple[int, bytes]
    positions: list[list[bytes]]
    """The tokens; a wildcard is an empty token with its prefix and suffix after it."""
    templates: list[tuple[list[bytes], int]]


class _ServiceSnapshot(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    name: str
    used: int
    families: list[_FamilySnapshot]


class _Snapshot(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    line: int
    evicted: int
    services: list[_ServiceSnapshot]


class Miner:
    """Gives lines their templates. See the module."""

    def __init__(self, limits: Limits | None = None, *, changes_max: int = 10_000) -> None:
        """changes_max: changes that are kept until `changes` is called; the oldest ones are lost beyond it, and counted."""
        self.limits = limits or Limits()
        self.evicted_templates = 0
        self._services: dict[str, _Service] = {}
        self._masker = Masker()
        self._line = 0
        self._templates = 0
        self._shapes_cached = self._lines_cached = 0
        self._changes_max = changes_max
        self._changes: dict[Created | Merged, None] = {}
        self._changes_lost = 0

    def template_of(self, service: str, message: str) -> Template:
        """The template of a line. Never raises; bounded time, whatever the message."""
        state = self._services.get(service)
        if state is None:
            state = self._open(service)
        self._line += 1
        state.used = self._line
        shape = shape_of(message)
        template = state.shapes.get(shape)
        if template is None or not template.live:
            template = self._of_shape(state, shape, len(message) > CHARS_MAX)
        template.used = self._line
        if state.templates > self.limits.service_templates or self._templates > self.limits.templates:
            self._make_room(state)
        return template

    def templates(self) -> Iterator[Template]:
        """All templates that are known, of all services."""
        for state in self._services.values():
            for family in _families(state):
                yield from family.templates.values()

    def changes(self) -> Changes:
        """What changed since the last call; forgets it."""
        found, lost = self._changes, self._changes_lost
        self._changes, self._changes_lost = {}, 0
        return Changes(
            [change for change in found if isinstance(change, Created)],
            [change for change in found if isinstance(change, Merged)],
            lost,
        )

    def snapshot(self) -> bytes:
        """All that is known, for `restore`. Changes that were not asked for are not in it."""
        services = [
            _ServiceSnapshot(
                state.name,
                state.used,
                [
                    _FamilySnapshot(
                        family.bucket,
                        [_position_bytes(position) for position in family.positions],
                        [(list(tokens), template.used) for tokens, template in family.templates.items()],
                    )
                    for family in _families(state)
                ],
            )
            for state in self._services.values()
        ]
        return msgspec.msgpack.encode(_Snapshot(SNAPSHOT_VERSION, self._line, self.evicted_templates, services))

    @classmethod
    def restore(cls, snapshot: bytes, limits: Limits | None = None, *, changes_max: int = 10_000) -> Miner:
        """A miner that knows what the one of the snapshot knew, within these limits. Raises InvalidSnapshot."""
        try:
            read = msgspec.msgpack.decode(snapshot, type=_Snapshot)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidSnapshot(f"expected a snapshot of templates, got something else: {error}") from error
        if read.version != SNAPSHOT_VERSION:
            raise InvalidSnapshot(f"expected version {SNAPSHOT_VERSION} of a snapshot of templates, got {read.version}")
        miner = cls(limits, changes_max=changes_max)
        miner._line, miner.evicted_templates = read.line, read.evicted
        for service in sorted(read.services, key=attrgetter("used")):
            state = miner._open(service.name)
            state.used = service.used
            for family in service.families:
                miner._restore_family(state, family)
            miner._make_room(state)
        miner.changes()
        return miner

    def _of_shape(self, state: _Service, shape: bytes, cut: bool) -> Template:
        tokens = self._masker.tokens(shape, cut=cut)
        template = state.lines.get(tokens)
        if template is None or not template.live:
            template = self._join(state, tokens)
            if self._lines_cached >= _LINES_CACHED_MAX:
                self._lines_cached = 0
                for each in self._services.values():
                    each.lines.clear()
            self._lines_cached += 1
            state.lines[tokens] = template
        if len(shape) <= _CACHED_SHAPE_BYTES_MAX:
            if self._shapes_cached >= _SHAPES_CACHED_MAX:
                self._shapes_cached = 0
                for each in self._services.values():
                    each.shapes.clear()
            self._shapes_cached += 1
            state.shapes[shape] = template
        return template

    def _join(self, state: _Service, tokens: Tokens) -> Template:
        """Find or begin the family of a line that is not known, and its template there."""
        bucket = self._bucket(state, tokens)
        best, likeness, rigid = None, 0.0, rigid_of(tokens)
        strange_max = (1 - _least_likeness(tokens)) * len(tokens)  # more of them, and it is not alike
        for family in state.buckets[bucket]:
            found = family.likeness(tokens, rigid, strange_max)
            if found > likeness:
                best, likeness = family, found
                if found > 1.0:
                    break
        if best is None or likeness < _least_likeness(tokens):
            best = self._begin(state, bucket, tokens)
        elif best.take(tokens):
            self._merge(state, best)
        key = best.view(tokens)
        template = best.templates.get(key) or self._create(state, best, key)
        while len(best.templates) > FAMILY_TEMPLATES_MAX and best.widen():
            template.used = self._line
            self._merge(state, best)
            template = best.templates[best.view(tokens)]
        return template

    def _bucket(self, state: _Service, tokens: Tokens) -> tuple[int, bytes]:
        length = len(tokens)
        key = (length, tokens[0] if tokens and not has_wildcard(tokens[0]) else ANY)
        if key not in state.buckets:
            if key[1] != ANY and state.first_tokens.get(length, 0) >= FIRST_TOKENS_MAX:
                key = (length, ANY)
            elif key[1] != ANY:
                state.first_tokens[length] = state.first_tokens.get(length, 0) + 1
            state.buckets.setdefault(key, [])
        return key

    def _begin(self, state: _Service, bucket: tuple[int, bytes], tokens: Tokens) -> Family:
        families = state.buckets[bucket]
        if len(families) >= BUCKET_FAMILIES_MAX:
            oldest = min(families, key=_last_used)
            for template in list(oldest.templates.values()):
                self._evict(state, template)
        family = Family([(token,) for token in tokens], bucket, rigid_of(tokens))
        state.buckets.setdefault(bucket, []).append(family)
        return family

    def _create(self, state: _Service, family: Family, tokens: Tokens) -> Template:
        text = text_of(tokens)
        template = Template(state.name, tokens, text, id_of(text), family, self._line)
        family.templates[tokens] = template
        state.templates += 1
        self._templates += 1
        self._report(Created(state.name, template.id, text))
        return template

    def _merge(self, state: _Service, family: Family) -> None:
        """Give each template of a family that became more general its more general one."""
        for tokens, template in list(family.templates.items()):
            general = family.view(tokens)
            if general == tokens:
                continue
            self._forget(state, template)
            into = family.templates.get(general) or self._create(state, family, general)
            into.used = max(into.used, template.used)
            self._report(Merged(state.name, template.id, into.id))

    def _report(self, change: Created | Merged) -> None:
        self._changes.pop(change, None)  # the newest place is the one that counts
        self._changes[change] = None
        if len(self._changes) > self._changes_max:
            del self._changes[next(iter(self._changes))]
            self._changes_lost += 1

    def _make_room(self, state: _Service) -> None:
        """Evict, a tenth at a time, what was used longest ago: of the service, or of the one that has most."""
        while state.templates > self.limits.service_templates:
            self._evict_tenth(state)
        while self._templates > self.limits.templates:
            self._evict_tenth(max(self._services.values(), key=attrgetter("templates")))

    def _evict_tenth(self, state: _Service) -> None:
        known = (template for family in _families(state) for template in family.templates.values())
        for template in nsmallest(max(1, state.templates // 10), known, key=attrgetter("used")):
            self._evict(state, template)

    def _evict(self, state: _Service, template: Template) -> None:
        self._forget(state, template)
        self.evicted_templates += 1
        family = template.family
        if family.templates:
            return
        families = state.buckets[family.bucket]
        families.remove(family)
        if not families:
            del state.buckets[family.bucket]
            length, first = family.bucket
            if first != ANY:
                state.first_tokens[length] -= 1

    def _forget(self, state: _Service, template: Template) -> None:
        template.live = False
        del template.family.templates[template.tokens]
        state.templates -= 1
        self._templates -= 1

    def _open(self, service: str) -> _Service:
        if len(self._services) >= self.limits.services:
            oldest = min(self._services.values(), key=attrgetter("used"))
            self.evicted_templates += oldest.templates
            self._templates -= oldest.templates
            del self._services[oldest.name]
        return self._services.setdefault(service, _Service(service))

    def _restore_family(self, state: _Service, read: _FamilySnapshot) -> None:
        length, first = read.bucket
        if len(read.positions) != length or not 0 <= length <= TOKENS_MAX + 1:
            raise InvalidSnapshot(f"expected {length} positions of a family, got {len(read.positions)}")
        positions = [_position(each) for each in read.positions]
        rigid = rigid_of(tuple(b"" if isinstance(each, Wild) else each[0] for each in positions))
        family = Family(positions, read.bucket, rigid)
        if read.bucket not in state.buckets and first != ANY:
            state.first_tokens[length] = state.first_tokens.get(length, 0) + 1
        state.buckets.setdefault(read.bucket, []).append(family)
        if not read.templates:
            raise InvalidSnapshot("expected each family to have a template, got one without")
        for tokens, used in read.templates:
            key = tuple(tokens)
            if len(key) != length or key in family.templates or family.view(key) != key or _bytes(key) > TEXT_BYTES_MAX:
                raise InvalidSnapshot(f"expected templates of {length} tokens, each once, got {text_of(key)[:100]!r}")
            self._create(state, family, key).used = used


def _bytes(tokens: Tokens) -> int:
    return sum(map(len, tokens)) + len(tokens)


def _least_likeness(tokens: Tokens) -> float:
    # Of two words one is half: still alike, or `user ann` would begin a family for each user.
    return 0.5 if len(tokens) == 2 else SIMILARITY_MIN


def _last_used(family: Family) -> int:
    return max(template.used for template in family.templates.values())


def _families(state: _Service) -> Iterator[Family]:
    for families in state.buckets.values():
        yield from families


def _position_bytes(position: Position) -> list[bytes]:
    return [b"", position.prefix, position.suffix] if isinstance(position, Wild) else list(position)


def _position(tokens: list[bytes]) -> Position:
    if len(tokens) == 3 and tokens[0] == b"":
        return Wild(tokens[1], tokens[2])
    if not 1 <= len(tokens) <= VALUES_MAX or b"" in tokens:
        raise InvalidSnapshot(f"expected 1 to {VALUES_MAX} tokens or a wildcard at a position, got {len(tokens)}")
    return tuple(tokens)
