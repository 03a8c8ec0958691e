"""Crontabs, drawn from their grammar: valid lines mean what they say, and mistakes are found where they are."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from graphile_worker_py import CrontabProblem, InvalidCrontab
from graphile_worker_py.cron.crontab import parse_crontab
from graphile_worker_py.cron.pattern import FIELDS, Pattern

MIDNIGHT = datetime(2024, 1, 1, tzinfo=timezone.utc)


def refused(text: str) -> tuple[CrontabProblem, ...]:
    """Return the problems of a text, none for a crontab."""
    try:
        parse_crontab(text)
    except InvalidCrontab as error:
        return error.problems
    return ()


spaces = st.text(" \t\u00a0\u2003", min_size=1, max_size=3)
names = st.from_regex(r"[_a-zA-Z][_a-zA-Z0-9:/_-]{0,9}", fullmatch=True)


@st.composite
def entries(draw: st.DrawFn, number: int) -> tuple[str, set[int]]:
    """Draw an entry of the list in a time field, and what it means, worked out in another way."""
    field = FIELDS[number]
    top = 7 if number == 4 else field.highest
    low, high = sorted(draw(st.lists(st.integers(field.lowest, top), min_size=2, max_size=2, unique=True)))
    step = draw(st.integers(1, 70))
    every = list(range(field.lowest, field.highest + 1))
    kind = draw(st.sampled_from(["one", "padded", "range", "stepped range", "star", "stepped star"]))
    text, values = {
        "one": (f"{low}", [low]),
        "padded": (f"00{low}", [low]),
        "range": (f"{low}-{high}", [n for n in range(100) if low <= n <= high]),
        "stepped range": (f"{low}-{high}/{step}", [n for n in range(low, high + 1) if (n - low) % step == 0]),
        "star": ("*", every),
        "stepped star": (f"*/{step}", every[::step]),
    }[kind]
    return text, {n % 7 if number == 4 else n for n in values}


@st.composite
def fields(draw: st.DrawFn, number: int) -> tuple[str, tuple[int, ...]]:
    found = draw(st.lists(entries(number), min_size=1, max_size=3))
    return ",".join(text for text, _ in found), tuple(sorted(set().union(*(values for _, values in found))))


patterns = st.tuples(*(fields(number) for number in range(5)))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("aé'\"\\} "),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab{}", max_size=3), inner, max_size=3),
    max_leaves=6,
)
payloads = st.dictionaries(st.text("abc", max_size=3), json_values, max_size=3)


@given(patterns, names, spaces, st.none() | payloads)
def test_valid_lines_mean_what_they_say(
    pattern: tuple[tuple[str, tuple[int, ...]], ...], task: str, space: str, payload: Any
) -> None:
    line = space.join([*(text for text, _ in pattern), task])
    (found,) = parse_crontab(line if payload is None else f"{line}{space}{json.dumps(payload)}{space}")
    assert found.pattern == Pattern(*(values for _, values in pattern))
    assert found.task == task
    written = json.loads(found.payload_at(MIDNIGHT, backfilled=True))
    del written["_cron"]
    assert written == (payload or {})


@given(patterns, names, st.data())
def test_a_broken_character_is_found_where_it_is(
    pattern: tuple[tuple[str, tuple[int, ...]], ...], task: str, data: st.DataObject
) -> None:
    """A character no field knows spoils one entry: the mistake is in it, and there is no other."""
    line = " ".join([*(text for text, _ in pattern), task])
    end = len(line) - len(task) - 1
    position = data.draw(st.integers(0, end - 1).filter(lambda place: line[place] not in " ,"))
    broken = line[:position] + data.draw(st.sampled_from("!%.é{")) + line[position + 1 :]
    (problem,) = refused(broken)
    start = max(broken.rfind(" ", 0, position), broken.rfind(",", 0, position)) + 1
    assert (problem.line, problem.column) == (1, start + 1)


@given(st.text(st.sampled_from("*/-, 0123456789\n\t@?&={}'\"ab#%+\r\u2028\\é"), max_size=60) | st.text(max_size=60))
def test_any_text_is_read_or_refused_with_places(text: str) -> None:
    places = [(problem.line, problem.column) for problem in refused(text)]
    lines = re.split(r"\r?\n", text)
    assert all(1 <= column <= len(lines[line - 1]) + 1 for line, column in places)
    assert places == sorted(places)
