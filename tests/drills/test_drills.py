"""The drills that take no time, in their short form; `make drills` runs all of them at length."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from drills import catalogue
from drills.catalogue import DRILLS
from drills.scene import Stage

catalogue.load()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with catalogue.stage() as stage:
        yield stage


@pytest.mark.parametrize("name", ["kill-worker", "sigterm", "restart-immediate"])
def test_a_drill_passes_in_short(name: str, stage: Stage) -> None:
    result = catalogue.run(DRILLS[name], stage, short=True)
    assert result.passed, "\n".join(result.problems)
    assert sum(result.rate) > 200  # there was a load
    assert result.faults
