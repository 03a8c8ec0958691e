"""What hypothesis draws for the steps of the model test: few values of each kind, so that they meet often."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from model import STALE, Asked
from model_tables import BEGIN

TICK = timedelta(milliseconds=1)  # between any two statements
HOUR = timedelta(hours=1)
HOLDERS = ("h0", "h1")
CLEANUP = ("DELETE_PERMAFAILED_JOBS", "GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES")

holders = st.sampled_from(HOLDERS)
picks = st.integers(1, 15)  # a bit for each that is picked
ways = st.lists(st.sampled_from(["node's", "delay", "moment", "final", "snooze"]), min_size=1, max_size=3)
guards = st.sampled_from(["right"] * 4 + ["another holder", "an earlier claim"])
pauses = st.sampled_from([timedelta()] * 3 + [STALE - HOUR, STALE + TICK])
modes = st.sampled_from([None, "replace", "preserve_run_at", "unsafe_dedupe"])
keys = st.sampled_from(["k0", "k1"])
moments = st.sampled_from([None, None, timedelta(), -HOUR, HOUR])
specs = st.fixed_dictionaries(
    {
        "identifier": st.sampled_from("aab"),
        "payload": st.sampled_from([None, [1], [2, 3, 4], {"n": 1}, "text"]),
        "queue_name": st.sampled_from([None, "q0", "q1"]),
        "run_at": moments,
        "priority": st.sampled_from([None, -1, 0, 1]),
        "max_attempts": st.sampled_from([None, 1, 2, 3]),
        "job_key": st.none(),
        "flags": st.sampled_from([None, None, None, [], ["f"], ["g", "f"]]),
    }
)
specs_and_keys = st.tuples(specs, st.none() | keys)
changes = st.fixed_dictionaries(
    {
        "run_at": st.sampled_from([None, HOUR, HOUR, -HOUR]),
        "priority": st.sampled_from([None, -1, 1]),
        "attempts": st.sampled_from([None, 0, 3]),
        "max_attempts": st.sampled_from([None, 1, 4]),
    }
)
tasks = st.sampled_from([["a", "b"], ["a", "b"], ["b", "c"]])
forbidden = st.sampled_from([[], [], ["f"], ["x", "g"]])
claims_asked = st.builds(
    Asked,
    count=st.integers(1, 5),
    run_length=st.integers(1, 3),
    tasks=tasks,
    forbidden=forbidden,
    busy=st.sampled_from([(), (), ("q0",)]),
)
lanes_asked = st.builds(
    Asked,
    count=st.integers(1, 3),
    tasks=tasks,
    forbidden=forbidden,
    with_queues=st.just(False),
    lanes=st.sampled_from([None, {-1: None, 0: BEGIN + 30 * TICK}, {0: BEGIN - HOUR, 1: None}]),
)
cleanups = st.sets(st.sampled_from(CLEANUP), min_size=1)


def some(things: list[Any], picked: int) -> list[Any]:
    """Pick some, at least one where there is one."""
    return [thing for place, thing in enumerate(things) if picked >> place % 4 & 1] or things[:1]
