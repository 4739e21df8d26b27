"""Fleets of real processes, torn down whatever happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infra.fleet import EMBEDDED, FULL, Fleet
from tests.fleets import Fleets

MakeFleet = Callable[..., Fleet]


@pytest.fixture
def make_fleet(request: pytest.FixtureRequest, fleets: Fleets) -> Iterator[MakeFleet]:
    """Makes fleets with started servers; at the end shows the roles' logs if the test failed, and stops the roles."""
    made: list[Fleet] = []

    def make(profile: str, **options: Any) -> Fleet:
        if profile == FULL:
            request.getfixturevalue("kafka_bootstrap")
            request.getfixturevalue("timescale_server")
        made.append(fleets.make(profile, **options))
        return made[-1]

    yield make
    report = getattr(request.node, "report_of_call", None)
    if report is not None and report.failed:
        for fleet in made:
            print(fleet.failures())
    for fleet in made:
        fleets.end(fleet)


@pytest.fixture(params=[EMBEDDED, FULL])
def profile(request: pytest.FixtureRequest) -> str:
    """Each test on both profiles."""
    name: str = request.param
    return name


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keep the outcome of the call for the fixture above."""
    report = yield
    if call.when == "call":
        item.report_of_call = report  # type: ignore[attr-defined]  # pytest's own recipe
    return report
