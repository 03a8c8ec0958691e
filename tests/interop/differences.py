"""The differences between Node's functions and ours that are meant: those in the table of docs/beside-node.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import attrs

from interop.replay import Seen
from interop.steps import Step

PAGE = Path(__file__).parents[2] / "docs" / "beside-node.md"
SECTION = "## Differences of the SQL functions"

Difference = Callable[[Step, Seen, Seen], Seen]


def documented() -> list[str]:
    """Return the names in the table, each once."""
    section = PAGE.read_text("utf-8").partition(SECTION)[2].partition("\n## ")[0]
    names = re.findall(r"^\| `([a-z-]+)` \|", section, re.M)
    rows = len(re.findall(r"^\|", section, re.M)) - 2  # the heading, and the line below it
    assert rows == len(names) == len(set(names)), f"a row without a name, or a name twice: {names}"
    return names


def first_mistake(step: Step, node: Seen, ours: Seen) -> Seen:
    """Of several mistakes in one call, either may be the one that is told."""
    if node.error != ours.error and {node.error, ours.error} <= step.mistakes:
        return attrs.evolve(node, error=ours.error, message=ours.message)
    return node


def burned_by_failure(step: Step, node: Seen, ours: Seen) -> Seen:
    """A call that fails may use up other identity values."""
    return attrs.evolve(node, burned=ours.burned) if node.error and ours.error else node


def error_text(step: Step, node: Seen, ours: Seen) -> Seen:
    """Ours refuses a mode in other words."""
    return attrs.evolve(node, message=ours.message) if node.error == ours.error == "GWBKM" else node


# Those that one connection alone can see: each turns what was seen of Node's side into what is expected of ours.
REPLAYED: dict[str, Difference] = {
    "first-mistake": first_mistake,
    "burned-by-failure": burned_by_failure,
    "error-text": error_text,
}


def expected(step: Step, node: Seen, ours: Seen) -> tuple[Seen, set[str]]:
    """Return what ours should show, by what Node's shows, and the names of the differences that took."""
    used = set()
    for name, difference in REPLAYED.items():
        changed = difference(step, node, ours)
        if changed != node:
            used.add(name)
        node = changed
    return node, used
