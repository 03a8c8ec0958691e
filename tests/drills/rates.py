"""How fast jobs were done, from the times at which they were."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

WINDOW = 2.0  # seconds over which a rate is taken
STEP = 0.1  # seconds from one window to the next
RECOVERED = 0.95


def rate(times: Sequence[float], begins: float, ends: float) -> float:
    """Return how many of the sorted times a second lie in a span."""
    return (bisect_left(times, ends) - bisect_left(times, begins)) / max(ends - begins, STEP)


def recovery(times: Sequence[float], since: float, usual: float) -> float:
    """Return the seconds after which the rate was 95 % of the usual one for a whole window; infinity for never."""
    last = times[-1] - WINDOW if times else -math.inf
    begins = since
    while begins <= last:
        if rate(times, begins, begins + WINDOW) >= RECOVERED * usual:
            return begins - since
        begins += STEP
    return math.inf


def longest_gap(times: Sequence[float], begins: float, ends: float) -> float:
    """Return the longest time within a span in which nothing was done."""
    within = [begins, *times[bisect_left(times, begins) : bisect_left(times, ends)], ends]
    return max(after - before for before, after in pairwise(within))


def by_second(times: Sequence[float], begins: float, ends: float) -> list[int]:
    """Return how many of the times lie in each second of a span."""
    counts = [0] * max(1, math.ceil(ends - begins))
    for time in times:
        if begins <= time < begins + len(counts):
            counts[int(time - begins)] += 1
    return counts
