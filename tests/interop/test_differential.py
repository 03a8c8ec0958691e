"""The same calls on a schema that Node installed and on ours: rows, results, errors and notifications are the same.

Hypothesis makes the sequences (steps.py) and, where one shows a difference, looks for the shortest that does. They are
the same in every run; INTEROP_SEQUENCES asks for more of them than the 2,000, INTEROP_SEED for others.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from interop import differences
from interop.replay import LEVELS, NODE, OURS, Replay, Seen
from interop.steps import SEQUENCES, Step

SEQUENCES_IN_ALL = int(os.environ.get("INTEROP_SEQUENCES", "2000"))
SEED = int(os.environ.get("INTEROP_SEED", "0"))
PARTS = 4
IN_A_PART = -(-SEQUENCES_IN_ALL // PARTS)
ENOUGH_FOR_ALL = 100  # sequences in which each difference is met, many times over

pytestmark = pytest.mark.usefixtures("packages")


def compared(steps: list[Step], node: list[Seen], ours: list[Seen]) -> set[str]:
    """Check that after each step both sides are the same but for what is documented; return the names of that."""
    used = set()
    for number, (step, theirs, own) in enumerate(zip(steps, node, ours, strict=True), 1):
        assert theirs.error is None or theirs.error in step.mistakes, f"step {number} has a mistake that was not meant"
        expected, names = differences.expected(step, theirs, own)
        assert own == expected, f"step {number}: {step}"
        used |= names
    return used


@pytest.mark.timeout(600 + IN_A_PART)  # where there is a difference, hypothesis looks for the shortest for up to 300 s
@pytest.mark.parametrize("part", range(PARTS))
def test_sequences_show_the_same_on_both_sides(
    both_url: str, part: int, record_property: Callable[[str, int], None]
) -> None:
    used: set[str] = set()
    ran: list[int] = []
    with Replay(both_url) as replay:

        @seed(SEED + part)
        @settings(
            max_examples=IN_A_PART,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        @given(st.sampled_from(LEVELS), SEQUENCES)
        def same(level: str, steps: list[Step]) -> None:
            ran.append(len(steps))
            used.update(compared(steps, replay(NODE, steps, level), replay(OURS, steps, level)))

        same()
    record_property("sequences", len(ran))
    record_property("steps", sum(ran))
    assert IN_A_PART < ENOUGH_FOR_ALL or used == set(differences.REPLAYED)
