"""Rates, recoveries and gaps, from times that are known."""

from __future__ import annotations

import math

import pytest

from drills import rates

STEADY = [second / 100 for second in range(2000)]  # 100 a second for 20 s
HALVED = STEADY[:1000] + STEADY[1000::2]
INTERRUPTED = STEADY[:500] + STEADY[1000:]


def test_a_rate_counts_what_lies_in_the_span() -> None:
    assert rates.rate(STEADY, 5, 10) == pytest.approx(100, rel=0.01)
    assert rates.rate(INTERRUPTED, 5, 10) == 0
    assert rates.rate([], 5, 10) == 0


def test_a_recovery_is_when_the_usual_rate_holds_for_a_window() -> None:
    assert rates.recovery(STEADY, 5, 100) == 0
    assert rates.recovery(INTERRUPTED, 5, 100) == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize("times", [HALVED, STEADY[:1050], []])
def test_what_never_comes_back_is_never_called_recovered(times: list[float]) -> None:
    assert rates.recovery(times, 10, 100) == math.inf


def test_the_longest_gap_reaches_to_the_ends_of_the_span() -> None:
    assert rates.longest_gap(STEADY, 5, 10) == pytest.approx(0.01)
    assert rates.longest_gap(INTERRUPTED, 4, 11) == pytest.approx(5.01)
    assert rates.longest_gap([], 4, 11) == 7
    assert rates.longest_gap(INTERRUPTED, 4, 7) == pytest.approx(2.01)


def test_seconds_are_counted_from_the_beginning() -> None:
    assert rates.by_second([0.5, 1.2, 1.9, 3.5, 9.0], 0.0, 4.0) == [1, 2, 0, 1]
