"""What the agent remembers is one state or the next, and nothing else is believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import StateError
from agent.shipping.checkpoint import Checkpoint, Part, Place, State, read_state, write_state


def state() -> State:
    return State("id", 7, {"app": 5}, [Place("app", "a.log", 1, 2, 3, "head", 4, "tail", True)], [Part("key", 4, 2)])


def test_what_was_written_is_read(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "deep" / "state")
    assert checkpoint.load()[0].places == []
    checkpoint.save(write_state(state(), b"body"))
    found, body = checkpoint.load()
    assert (found.places, found.parts, found.looked_us, body) == (state().places, state().parts, {"app": 5}, b"body")
    checkpoint.close()


def test_a_directory_is_one_agents(tmp_path: Path) -> None:
    first = Checkpoint(tmp_path)
    with pytest.raises(StateError, match="another agent uses it"):
        Checkpoint(tmp_path)
    first.close()
    Checkpoint(tmp_path).close()


@given(st.integers(0, 400), st.integers(1, 50), st.binary(max_size=5))
def test_a_damaged_state_is_refused_or_the_same(place: int, cut: int, other: bytes) -> None:
    raw = write_state(state(), b"body")
    damaged = raw[:place] + other + raw[place + cut :]
    try:
        found, body = read_state(damaged)
    except StateError:
        return
    assert body == b"body"
    assert sum(part.size for part in found.parts) == 4


def test_a_write_that_fails_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(write_state(state(), b"body"))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(write_state(State("other"), b""))
    assert checkpoint.load()[1] == b"body"
    checkpoint.close()


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(write_state(State("id", version=99), b""))
    with pytest.raises(StateError, match="version 99"):
        checkpoint.load()
    checkpoint.close()
