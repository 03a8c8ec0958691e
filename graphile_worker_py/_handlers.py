"""What can be a handler, and what it asks for: whether a context, and which payload.

What could not work is refused where the handler is written: coroutines, generators, and functions that take neither a
payload nor a payload and a context.
"""

from __future__ import annotations

import inspect
import sys
import typing
from functools import partial
from typing import Any

from graphile_worker_py.errors import InvalidHandler


def wants_context(handler: object) -> bool:
    """Say whether a handler takes (payload, context) rather than (payload); raise InvalidHandler if neither.

    A second parameter is the context if it must be given, or if it is called ctx or context.
    """
    if not callable(handler):
        raise InvalidHandler(f"a task needs a function, got {type(handler).__name__}")
    name = name_of(handler)
    _refuse_lazy_functions(handler, name)
    parameters = _parameters(handler)
    if parameters is None:
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    if positional and positional[0].name == "self":
        raise InvalidHandler(
            f"{name} is a method of a class: make it a function, or register the method of an instance"
        )
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters) or len(required) > 2:
        raise InvalidHandler(f"{name} asks for more than a payload and a context: a handler is called with these two")
    if not positional and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise InvalidHandler(
            f"{name} takes no argument: a handler is called with the payload, write def {name}(payload)"
        )
    return len(required) == 2 or (len(positional) > 1 and positional[1].name in ("ctx", "context"))


def payload_annotation(handler: Any) -> Any:
    """Return the annotation of a handler's payload, Parameter.empty where it has none.

    Only this one is evaluated: that of the context may well be known to type checkers alone. Raises InvalidHandler for
    a name that means nothing at run time.
    """
    first = next(iter(_parameters(handler) or ()), None)
    if first is None or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
        return inspect.Parameter.empty
    if not isinstance(first.annotation, (str, typing.ForwardRef)):
        return first.annotation

    def like_the_handler() -> None: ...

    like_the_handler.__annotations__ = {"payload": first.annotation}
    try:
        return typing.get_type_hints(like_the_handler, _globals(handler), include_extras=True)["payload"]
    except Exception as error:
        raise InvalidHandler(
            f"its annotation means nothing at run time ({error}); "
            "let it name what the module itself defines or imports, or annotate with Any"
        ) from error


def name_of(handler: object) -> str:
    """Return what to call a handler in a message."""
    return str(getattr(handler, "__qualname__", repr(handler)))


def _parameters(handler: Any) -> list[inspect.Parameter] | None:
    """Return the parameters, None of what does not tell them; annotations are left as they stand."""
    options: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        options["annotation_format"] = Format.FORWARDREF
    try:
        return list(inspect.signature(handler, **options).parameters.values())
    except (TypeError, ValueError):
        return None


def _globals(handler: Any) -> dict[str, Any]:
    """Return the names that a handler sees, below decorators and partial()."""
    function = inspect.unwrap(handler)
    while isinstance(function, partial):
        function = inspect.unwrap(function.func)
    names: dict[str, Any] | None = getattr(function, "__globals__", None)
    return getattr(type(function).__call__, "__globals__", {}) if names is None else names


def _refuse_lazy_functions(handler: Any, name: str) -> None:
    """Refuse what would return at once without having done anything.

    A decorator may make a plain function of an async def, with asyncio.run; where it does not, its jobs fail and say
    so. A generator is refused behind a decorator too: its jobs would seem to succeed.
    """
    for function in (handler, type(handler).__call__):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidHandler(
                f"{name} is an async def: handlers run in threads, so write a plain def, "
                "and call asyncio.run(...) in it if you must"
            )
    inner = inspect.unwrap(handler)
    for function in (inner, type(inner).__call__):
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidHandler(f"{name} is a generator: calling it would run nothing, so replace its yield")
