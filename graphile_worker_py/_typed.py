"""JSON data to the type a handler asks for, strictly; and what does not fit, in words that hold no data.

cattrs does the work, with hooks that convert nothing silently: it would make 5 of "5", "5" of 5, and a list of letters
of a text. Models of pydantic go by their own rules. An exception of cattrs', pydantic's or a class's own may hold what
it refused, so none is kept, and of none but those known to be safe is the message told.
"""

from __future__ import annotations

import json
import re
import types
from collections import deque
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    MutableSequence,
    MutableSet,
    Sequence,
)
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time
from decimal import Decimal
from functools import cache
from inspect import Parameter
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin
from uuid import UUID

import attrs

from graphile_worker_py.errors import InvalidHandler, InvalidPayload

if TYPE_CHECKING:
    from cattrs import BaseConverter, Converter

Read = Callable[[Any], Any]

LISTS: dict[Any, Callable[[Iterable[Any]], Any]] = {
    list: list,
    Sequence: list,
    MutableSequence: list,
    Collection: list,
    Iterable: list,
    deque: deque,
    tuple: tuple,
    set: set,
    MutableSet: set,
    AbstractSet: frozenset,
    frozenset: frozenset,
}
PLAIN = (Parameter.empty, Any, object, None, type(None), str, int, float, bool, dict, list)
PLAIN_ORIGINS = (
    dict,
    list,
    Union,
    types.UnionType,
    Mapping,
    MutableMapping,
    Sequence,
    MutableSequence,
    Collection,
    Iterable,
)
# Of what pydantic adds to its messages, that which comes from the model and not from the data.
OF_THE_MODEL = frozenset(
    {"gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "actual_length", "field_type", "expected"}
    | {"pattern", "max_digits", "max_whole_digits", "decimal_places", "class", "class_name"}
)


def reader(kind: Any) -> Read | None:
    """Return what makes a `kind` of JSON data, or raises InvalidPayload; None where `kind` is made of JSON's own types.

    Raises InvalidHandler for a type that nobody knows how to make.
    """
    if _is_plain(kind):
        return None
    try:
        make = _converter().get_structure_hook(kind)
    except Exception as error:
        unknown = error.kind if isinstance(error, _Unmakeable) else kind
        raise InvalidHandler(
            f"{_name(unknown)} cannot be made of JSON: annotate the payload with an attrs class, a dataclass, a "
            "TypedDict, a pydantic model, a list of one, or what JSON has itself"
        ) from error

    def read(payload: Any) -> Any:
        try:
            return make(payload, kind)
        except MemoryError:
            raise
        except Exception as error:
            problems = list(_problems(error, "payload", kind))
        raise InvalidPayload(problems)  # outside the except clause, or else it would carry the error, data and all

    return read


def _is_plain(kind: Any, seen: tuple[Any, ...] = ()) -> bool:
    """Say whether an annotation names only what JSON decodes to, so that nothing is to be made of it."""
    if any(kind is one for one in (*PLAIN, *seen)) or isinstance(kind, TypeVar):
        return True
    if hasattr(kind, "__value__") and not isinstance(kind, type):  # `type Json = ...`, which may contain itself
        return _is_plain(kind.__value__, (*seen, kind))
    origin = get_origin(kind) or kind
    return any(origin is one for one in PLAIN_ORIGINS) and all(_is_plain(one, seen) for one in get_args(kind))


class _Unmakeable(Exception):
    def __init__(self, kind: Any) -> None:
        super().__init__(kind)
        self.kind = kind


class _Unfit(Exception):
    """What was expected and what was there instead, by the names of their types alone."""

    def __init__(self, expected: str, value: object, *, got: str | None = None) -> None:
        there = "null" if value is None else type(value).__name__
        super().__init__(f"expected {expected}, got {there if got is None else got}")


@cache
def _converter() -> Converter:
    """Return a converter, made on first need, for importing cattrs takes a while."""
    from cattrs import Converter
    from cattrs.strategies import configure_union_passthrough

    class Strict(Converter):
        """Makes classes and mappings of JSON's objects only; anything else would fail later, and obscurely."""

        def gen_structure_attrs_fromdict(self, cl: Any) -> Any:
            return _of_an_object(super().gen_structure_attrs_fromdict(cl))

        def gen_structure_typeddict(self, cl: Any) -> Any:
            return _of_an_object(super().gen_structure_typeddict(_evaluated(cl)))

        def gen_structure_mapping(self, cl: Any) -> Any:
            return _of_an_object(super().gen_structure_mapping(cl))

    converter = Strict(structure_fallback_factory=_refuse)
    converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)
    for kind, accepted in ((str, (str,)), (bool, (bool,)), (int, (int,)), (float, (int, float))):
        converter.register_structure_hook(kind, _exactly(kind, accepted))
    for moment in (datetime, date, time):
        converter.register_structure_hook(moment, _moment)
    converter.register_structure_hook(UUID, lambda value, kind: kind(_text(value)))
    converter.register_structure_hook(Decimal, _decimal)
    converter.register_structure_hook_factory(_is_a_list, _of_a_list)
    converter.register_structure_hook_func(lambda kind: hasattr(kind, "model_validate_json"), _model)
    configure_union_passthrough(str | bool | int | float | None, converter)
    return converter


def _is_a_list(kind: Any) -> bool:
    origin = get_origin(kind)
    return (kind if origin is None else origin) in LISTS


def _refuse(kind: Any) -> Any:
    raise _Unmakeable(kind)


def _evaluated(kind: Any) -> Any:
    """Return a TypedDict that knows its optional keys: where annotations are texts NotRequired is hidden from it."""
    from typing_extensions import NotRequired, TypedDict, get_type_hints  # which cattrs brings

    required: frozenset[str] = getattr(kind, "__required_keys__", frozenset())
    hints: dict[str, Any] = get_type_hints(kind, include_extras=True) if required else {}
    if all(get_origin(hints[name]) is not NotRequired for name in required):
        return kind
    return TypedDict(  # type: ignore[operator] # made of what only a running program knows
        kind.__name__, {name: hint if name in required else NotRequired[_bare(hint)] for name, hint in hints.items()}
    )


def _bare(hint: Any) -> Any:
    from typing_extensions import NotRequired, Required

    return get_args(hint)[0] if get_origin(hint) in (NotRequired, Required) else hint


def _of_an_object(make: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def made(value: Any, kind: Any) -> Any:
        if not isinstance(value, dict):
            raise _Unfit("an object", value)
        return make(value, kind)

    return made


def _exactly(base: type, accepted: tuple[type, ...]) -> Callable[[Any, Any], Any]:
    def made(value: Any, kind: Any) -> Any:
        if type(value) not in accepted:
            raise _Unfit(f"{'an' if base is int else 'a'} {base.__name__}", value)
        return value if type(value) is kind else kind(value)

    return made


def _text(value: Any) -> str:
    if type(value) is not str:
        raise _Unfit("a str", value)
    return value


def _moment(value: Any, kind: Any) -> Any:
    text = _text(value)
    return kind.fromisoformat(f"{text[:-1]}+00:00" if text.endswith("Z") else text)  # Python 3.10 knows no Z


def _decimal(value: Any, kind: Any) -> Any:
    if type(value) not in (str, int, float):
        raise _Unfit("a number, or one in a str", value)
    return kind(str(value))


def _model(value: Any, kind: Any) -> Any:
    # As JSON, not as Python data: a strict model takes a datetime from a text only there.
    return kind.model_validate_json(json.dumps(value))


def _of_a_list(kind: Any, converter: BaseConverter) -> Callable[[Any, Any], Any]:
    """Return what makes a list, set or tuple, whose items are of one kind, or else of a kind for each place."""
    from cattrs.errors import IterableValidationError, IterableValidationNote

    build = LISTS[get_origin(kind) or kind]
    kinds = get_args(kind) or (Any,)
    by_place = build is tuple and len(kinds) > 1 and kinds[-1] is not Ellipsis
    hooks = [(converter.get_structure_hook(one), one) for one in kinds if one is not Ellipsis]

    def made(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            raise _Unfit("a list", value)
        if by_place and len(value) != len(hooks):
            raise _Unfit(f"{len(hooks)} items", value, got=str(len(value)))
        items, errors = [], []
        for index, (item, (hook, one)) in enumerate(zip(value, hooks if by_place else repeat(hooks[0]))):  # noqa: B905
            try:
                items.append(hook(item, one))
            except Exception as error:
                error.__notes__ = [IterableValidationNote("", index, one)]  # type: ignore[attr-defined]
                errors.append(error)
        if errors:
            raise IterableValidationError("", errors, kind)
        return build(items)

    return made


def _problems(error: Exception, path: str, kind: Any) -> Iterator[str]:
    """Yield a sentence for each thing that does not fit, after the path of it."""
    if hasattr(error, "group_exceptions"):  # of cattrs: all that is wrong with the parts of something
        noted, others = error.group_exceptions()
        for inner, note in noted:
            yield from _problems_of_a_part(inner, path, note)
        for inner in others:
            yield from _problems(inner, path, kind)
    elif isinstance(error, _Unfit):
        yield f"{path}: {error}"
    elif isinstance(error, RecursionError):
        yield f"{path}: nested too deeply"
    elif type(error).__module__.startswith("pydantic") and hasattr(error, "errors"):
        for problem in error.errors(include_url=False, include_input=False):
            yield f"{_below(path, *problem['loc'])}: {_safely(problem)}"
    else:
        field = next((one.name for one in error.args if isinstance(one, attrs.Attribute)), None)
        why = "" if type(error).__module__.startswith("cattrs") else f" ({type(error).__name__})"
        yield f"{path if field is None else _below(path, field)}: does not fit {_name(kind)}{why}"


def _problems_of_a_part(error: Exception, path: str, note: Any) -> Iterator[str]:
    step = getattr(note, "name", None) or getattr(note, "index", None)
    if isinstance(error, KeyError) and error.args == (step,):
        yield f"{_below(path, step)}: is missing"
    else:
        yield from _problems(error, _below(path, step), note.type)


def _below(path: str, *steps: object) -> str:
    return path + "".join(f"[{step}]" if isinstance(step, int) else f".{step!s:.40}" for step in steps)


def _safely(problem: Mapping[str, Any]) -> str:
    """Return pydantic's message, if it is known to be made of nothing but the model."""
    if problem["type"] in _known_to_pydantic() and set(problem.get("ctx", ())) <= OF_THE_MODEL:
        message = str(problem["msg"])
        return message[:1].lower() + message[1:]
    return f"does not fit ({problem['type']:.60})"


@cache
def _known_to_pydantic() -> frozenset[str]:
    from pydantic_core.core_schema import ErrorType

    return frozenset(get_args(ErrorType))


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else re.sub(r"\w+\.", "", str(kind))
