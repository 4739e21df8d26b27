"""Fleets of real processes, torn down whatever happened."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.fleet import EMBEDDED, FULL, Fleet

MakeFleet = Callable[..., Fleet]


@pytest.fixture
def make_fleet(request: pytest.FixtureRequest) -> Iterator[MakeFleet]:
    """Makes fleets with started servers; at the end shows the roles' logs if the test failed, and stops everything."""
    directory = Path(tempfile.mkdtemp(prefix="logfeed-fleet-"))
    directory.chmod(0o711)
    fleets: list[Fleet] = []

    def make(profile: str, **options: object) -> Fleet:
        if profile == FULL:
            request.getfixturevalue("kafka_bootstrap")
            request.getfixturevalue("timescale_server")
        fleet = Fleet(profile, directory / f"fleet{len(fleets)}", **options)  # type: ignore[arg-type]  # passed on
        fleets.append(fleet)
        fleet.start_servers()
        return fleet

    yield make
    report = getattr(request.node, "report_of_call", None)
    if report is not None and report.failed:
        for fleet in fleets:
            print(fleet.failures())
    for fleet in fleets:
        fleet.stop_everything()
    shutil.rmtree(directory, ignore_errors=True)


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
