"""How far a payload is from what a test asked for, in lines that name each place; both are what JSON has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LONGEST_SHOWN = 200  # characters of a value
LEAD = 20  # characters shown before the place where two long texts part


def differences(wanted: Any, found: Any) -> list[str]:
    """Return a line for each place where a payload lacks what is wanted, none if it has at least that.

    Where an object is wanted of a list, the item counts that differs least.
    """
    if isinstance(wanted, dict) and isinstance(found, list):
        items = (list(_different(wanted, item, f"payload[{place}]")) for place, item in enumerate(found))
        if not wanted:
            return []
        return min(items, key=len, default=["payload: expected an item, got an empty list"])
    if wanted == {}:
        return []
    return list(_different(wanted, found, "payload"))


def _different(wanted: Any, found: Any, path: str) -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            if key in found:
                yield from _different(value, found[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}: expected {shown(value)}, but it is not there"
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for place, (value, other) in enumerate(zip(wanted, found, strict=True)):
            yield from _different(value, other, f"{path}[{place}]")
    elif wanted != found or isinstance(wanted, bool) != isinstance(found, bool):
        start = _where_they_part(wanted, found)
        yield f"{path}: expected {shown(wanted, start)}, got {shown(found, start)}"


def shown(value: Any, start: int = 0) -> str:
    """Return a value's repr, of a long one a part; of a text that which begins at `start`."""
    text = f"...{value[start:]!r}" if start and isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}... ({len(text)} characters)"


def _where_they_part(one: Any, other: Any) -> int:
    """Return where to begin showing two texts, if they are alike for long."""
    if not isinstance(one, str) or not isinstance(other, str):
        return 0
    pairs = enumerate(zip(one, other, strict=False))
    alike = next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
    return alike - LEAD if alike > LONGEST_SHOWN // 2 else 0
