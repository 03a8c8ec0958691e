"""Payloads to JSON text, strictly: what PostgreSQL or Node could not read back is refused with its path.

json.dumps alone would write NaN, turn a key 1 into "1" and let NUL through, which PostgreSQL stores as json but
cannot merge as jsonb. So one walk checks and converts, and json.dumps only prints. The path is a linked list of
(parent, step): nothing is formatted unless something is refused.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Callable, Mapping, Set
from functools import cache
from typing import Any

from graphile_worker_py.errors import InvalidJobSpec

_print = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # json.dumps would make one a call
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SURELY_PRINTED = 10**640  # sys.set_int_max_str_digits() goes no lower


def text_problem(text: str) -> str | None:
    """Say what keeps a text out of PostgreSQL: a NUL character or a lone surrogate; None if nothing does."""
    if text.isascii() and "\x00" not in text:
        return None
    found = _UNSTORABLE.search(text)
    if found is None:
        return None
    return "holds a NUL character" if found[0] == "\x00" else "holds a lone surrogate (half a character)"


def encode(payload: object) -> str:
    """Return the payload as compact JSON text.

    Takes what JSON has, tuples, sets, mappings, and through cattrs or pydantic: attrs classes, dataclasses, models,
    datetime, UUID, Decimal, Enum as their JSON text forms. Raises InvalidJobSpec with the path of what it cannot take.
    """
    try:
        return _print(_plain(payload, None))
    except RecursionError:
        raise InvalidJobSpec("payload: nested too deeply, or contains itself; send a flatter structure") from None
    except (InvalidJobSpec, MemoryError):
        raise
    except Exception as error:  # an object's own code, called while the walk looked at it
        raise InvalidJobSpec(f"payload: reading it raised {type(error).__name__}; send plain data") from error


def _refuse(path: Any, problem: str) -> InvalidJobSpec:
    """Return the error that names the place, such as `payload.items[3].price: …`."""
    steps: list[str] = []
    while path is not None:
        path, step = path
        steps.append(f"[{step}]" if isinstance(step, int) else f".{str.__str__(step):.40}")
    return InvalidJobSpec(f"payload{''.join(reversed(steps))}: {problem}")


def _plain(value: Any, path: Any) -> Any:  # noqa: PLR0911 - one return for each kind of JSON value
    """Return value rebuilt from what json.dumps prints faithfully."""
    kind = type(value)
    if kind is str:
        problem = text_problem(value)
        if problem:
            raise _refuse(path, f"{problem}; remove it")
        return value
    if kind is bool or value is None:
        return value
    if kind is int:
        return value if -_SURELY_PRINTED < value < _SURELY_PRINTED else _printed(value, path)
    if kind is float:
        if not math.isfinite(value):
            raise _refuse(path, f"{value} is not JSON; send None or a text instead")
        return value
    if isinstance(value, Mapping):
        return {_key(key, path): _plain(item, (path, key)) for key, item in value.items()}
    if isinstance(value, (list, tuple, Set)):
        return [_plain(item, (path, index)) for index, item in enumerate(value)]
    return _plain(_simpler(value, path), path)


def _printed(value: int, path: Any) -> int:
    try:
        str(value)
    except ValueError:
        raise _refuse(path, "holds an integer of more digits than Python prints; send it as text") from None
    return value


def _key(key: object, path: Any) -> str:
    if not isinstance(key, str):
        raise _refuse(path, f"keys must be str in JSON, got {type(key).__name__}; convert it")
    problem = text_problem(key)
    if problem:
        raise _refuse(path, f"a key {problem}; remove it")
    return str.__str__(key)


def _simpler(value: Any, path: Any) -> Any:
    """Take one step from an object towards JSON; the walk goes on with what comes back."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    try:
        simpler = value.model_dump(mode="json") if hasattr(value, "model_dump") else _unstructure()(value)
    except RecursionError:
        raise
    except Exception as error:
        raise _refuse(path, f"{type(value).__name__} did not convert to JSON ({type(error).__name__})") from error
    if type(simpler) is type(value):
        raise _refuse(path, f"{type(value).__name__} is not JSON; convert it to str, int, float, list or dict")
    return simpler


@cache
def _unstructure() -> Callable[[Any], Any]:
    """Return cattrs' way to plain data, made on first need: its import costs as much as all of ours."""
    from datetime import date, datetime, time
    from decimal import Decimal
    from uuid import UUID

    from cattrs import Converter

    converter = Converter()
    for kind in (datetime, date, time):
        converter.register_unstructure_hook(kind, lambda moment: moment.isoformat())
    converter.register_unstructure_hook(Decimal, str)
    converter.register_unstructure_hook(UUID, str)
    return converter.unstructure
