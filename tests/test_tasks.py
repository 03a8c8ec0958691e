"""Tasks: what can be a handler and what is refused, which of them get a context, registries and their queues."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from graphile_worker_py import (
    DuplicateTask,
    GraphileWorkerError,
    InvalidHandler,
    InvalidJobSpec,
    JobSpec,
    Queue,
    Task,
    Tasks,
    UnknownTask,
)


@pytest.fixture
def tasks() -> Tasks:
    return Tasks()


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap as most decorators do."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def run_by_asyncio(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(payload: Any) -> Any:
        return asyncio.run(function(payload))

    return wrapper


# What cannot be a handler.


async def coroutine(payload: Any) -> None: ...


async def asynchronous_generator(payload: Any) -> AsyncIterator[None]:
    yield


def generator(payload: Any) -> Iterator[None]:
    yield


def nothing() -> None: ...


def three(payload: Any, ctx: Any, more: Any) -> None: ...


def keyword_only(payload: Any, *, more: Any) -> None: ...


def keywords(**payload: Any) -> None: ...


class Mailer:
    def send(self, payload: Any) -> None: ...

    async def send_later(self, payload: Any) -> None: ...

    @classmethod
    def by_class(cls, payload: Any) -> None: ...

    @staticmethod
    def by_nobody(payload: Any, ctx: Any) -> None: ...


class CoroutineCall:
    async def __call__(self, payload: Any) -> None: ...


class GeneratorCall:
    def __call__(self, payload: Any) -> Iterator[None]:
        yield


REFUSED = {
    "async def": [
        coroutine,
        asynchronous_generator,
        functools.partial(coroutine),
        CoroutineCall(),
        Mailer().send_later,
        Mailer.send_later,
    ],
    "is a generator": [
        generator,
        decorated(generator),
        decorated(asynchronous_generator),
        functools.partial(generator),
        GeneratorCall(),
        contextmanager(generator),
    ],
    "method of a class": [Mailer.send],
    "takes no argument": [nothing, keywords, lambda: None, functools.partial(lambda payload: None, {})],
    "more than a payload and a context": [three, keyword_only, decorated(three)],
    "needs a function": [5, "x", None, object(), Mailer.__dict__["by_class"]],
}


@pytest.mark.parametrize(("reason", "handler"), [(reason, one) for reason, many in REFUSED.items() for one in many])
def test_what_could_not_work_is_refused_where_it_is_registered(tasks: Tasks, reason: str, handler: Any) -> None:
    with pytest.raises(InvalidHandler, match=reason):
        tasks.task("name")(handler)
    with pytest.raises(InvalidHandler, match=reason):
        Task(handler, "name")
    assert len(tasks) == 0


def test_a_refusal_is_a_type_error_of_this_library_and_names_the_function(tasks: Tasks) -> None:
    with pytest.raises(InvalidHandler, match=r"^coroutine is an async def: .* write a plain def, .*asyncio\.run") as e:
        tasks.task(coroutine)
    assert isinstance(e.value, TypeError)
    assert isinstance(e.value, GraphileWorkerError)


def test_what_has_no_name_needs_an_identifier(tasks: Tasks) -> None:
    for number, nameless in enumerate([lambda payload: None, functools.partial(print), Callable1()]):
        with pytest.raises(InvalidHandler, match="give the task an identifier"):
            tasks.task(nameless)
        assert tasks.task(f"task{number}")(nameless).identifier == f"task{number}"


def test_a_task_is_registered_by_a_function_or_a_name(tasks: Tasks) -> None:
    with pytest.raises(InvalidHandler, match="needs a function, got int"):
        tasks.task(5)  # type: ignore[call-overload]
    for wrong in ("", "x" * 129, "a\x00", "\ud800"):
        with pytest.raises(InvalidJobSpec, match=r"^identifier: "):
            tasks.task(wrong)(print)
    assert len(tasks) == 0


BAD_OPTIONS = [
    ("priority", 40_000),
    ("priority", True),
    ("max_attempts", 0),
    ("queue_name", "x" * 129),
    ("queue_name", 5),
    ("flags", "urgent"),
    ("flags", [5]),
]


@pytest.mark.parametrize(("name", "value"), BAD_OPTIONS)
def test_options_are_checked_where_they_are_written(tasks: Tasks, name: str, value: Any) -> None:
    with pytest.raises(InvalidJobSpec, match=rf"^{name}: "):
        tasks.task("name", **{name: value})(print)
    assert len(tasks) == 0


# What can be a handler, and what it is called with.


def one(payload: Any) -> None: ...


def named_ctx(payload: Any, ctx: Any = None) -> None: ...


def named_context(payload: Any, context: Any = None) -> None: ...


def required_second(payload: Any, anything: Any) -> None: ...


def optional_second(payload: Any, retries: int = 3) -> None: ...


def variable(*args: Any) -> None: ...


def keyword_only_with_default(payload: Any, *, ctx: Any = None) -> None: ...


def positional_only(payload: Any, ctx: Any, /) -> None: ...


def third_optional(payload: Any, ctx: Any, more: int = 1, **rest: Any) -> None: ...


class Callable1:
    def __call__(self, payload: Any) -> None: ...


class Callable2:
    def __call__(self, payload: Any, ctx: Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "wants_context"),
    [
        (one, False),
        (lambda payload: None, False),
        (lambda payload, ctx: None, True),
        (named_ctx, True),
        (named_context, True),
        (required_second, True),
        (optional_second, False),
        (variable, False),
        (keyword_only_with_default, False),
        (positional_only, True),
        (third_optional, True),
        (Callable1(), False),
        (Callable2(), True),
        (Mailer().send, False),
        (Mailer.by_class, False),
        (Mailer.by_nobody, True),
        (Mailer.__dict__["by_nobody"], True),
        (functools.partial(required_second, anything=1), False),
        (functools.partial(three, 1), True),
        (decorated(one), False),
        (decorated(required_second), True),
        (run_by_asyncio(coroutine), False),
        (print, False),
        (dict, False),
    ],
)
def test_the_signature_says_whether_a_context_is_wanted(tasks: Tasks, handler: Any, wants_context: bool) -> None:
    assert tasks.task("name")(handler).wants_context == wants_context


def test_a_task_is_still_the_plain_function(tasks: Tasks) -> None:
    @tasks.task("charge", max_attempts=3)
    def charge_card(payload: list[int], factor: int = 2) -> int:
        """Charge a card."""
        return sum(payload) * factor

    assert charge_card([1, 2]) == 6
    assert charge_card([1, 2], factor=3) == 9
    assert charge_card(payload=[1]) == 2
    assert charge_card.__name__ == "charge_card"
    assert charge_card.__doc__ == "Charge a card."
    assert charge_card.__module__ == __name__
    assert charge_card.__wrapped__ is charge_card.handler
    assert str(inspect.signature(charge_card)) == "(payload: 'list[int]', factor: 'int' = 2) -> 'int'"
    assert repr(charge_card) == "<Task 'charge'>"
    assert charge_card.defaults == {"max_attempts": 3}


def test_a_functions_own_attributes_do_not_become_the_tasks(tasks: Tasks) -> None:
    def handler(payload: Any) -> str:
        return "called"

    for name in ("identifier", "handler", "defaults", "wants_context", "_add_job"):
        setattr(handler, name, "the function's own")
    task = tasks.task(handler)
    assert (task.identifier, task.defaults, task.wants_context, task({})) == ("handler", {}, False, "called")


def test_one_function_can_work_on_two_tasks(tasks: Tasks) -> None:
    @tasks.task("new name", priority=1)
    @tasks.task("old name", priority=2)
    def handler(payload: Any, ctx: Any) -> str:
        return f"{payload} {ctx}"

    assert tasks.identifiers() == ["old name", "new name"]
    assert [tasks[name].defaults["priority"] for name in ("old name", "new name")] == [2, 1]
    assert handler("a", "b") == tasks["old name"]("a", "b") == "a b"
    assert tasks["new name"].wants_context


def test_a_decorated_async_def_runs_or_fails_its_jobs_and_says_why(queue: Queue) -> None:
    queue.task("run")(run_by_asyncio(coroutine))
    queue.task("not run")(decorated(coroutine))
    queue.add_jobs([JobSpec("run"), JobSpec("not run")])
    assert queue.run_once(1).completed == 1
    (left,) = queue.jobs()
    assert left.task_identifier == "not run"
    assert "call asyncio.run(...) in it" in left.last_error


# Registries.


def test_a_second_handler_for_a_name_is_refused(tasks: Tasks) -> None:
    first = tasks.task("name")(print)
    with pytest.raises(DuplicateTask, match=r"^task 'name' has a handler already"):
        tasks.task("name")(one)
    with pytest.raises(DuplicateTask):
        tasks.task("name")(print)
    assert tasks["name"] is first


def test_a_registry_can_be_looked_through(tasks: Tasks) -> None:
    task = tasks.task(one)
    assert (list(tasks), len(tasks), tasks.identifiers(), tasks["one"]) == ([task], 1, ["one"], task)
    assert tasks.get("two") is None
    with pytest.raises(UnknownTask, match=r"^no task 'two' is registered"):
        tasks["two"]
    with pytest.raises(LookupError):
        tasks["two"]


def test_what_is_registered_after_the_inclusion_is_included_too(tasks: Tasks) -> None:
    middle, top = Tasks(), Tasks()
    before = tasks.task("before")(print)
    top.include(middle)
    middle.include(tasks)
    after = tasks.task("after")(print)
    assert list(top) == list(middle) == [before, after]
    top.task("own")(print)
    assert tasks.identifiers() == ["before", "after"]


def test_an_inclusion_that_clashes_includes_nothing(tasks: Tasks) -> None:
    tasks.task("fine")(print)
    tasks.task("name")(print)
    other = Tasks()
    other.task("name")(one)
    with pytest.raises(DuplicateTask):
        other.include(tasks)
    assert other.identifiers() == ["name"]
    tasks.task("later")(print)
    assert other.identifiers() == ["name"]


def test_a_name_that_any_includer_has_is_refused_everywhere(tasks: Tasks) -> None:
    middle, top = Tasks(), Tasks()
    middle.include(tasks)
    top.include(middle)
    top.task("name")(print)
    with pytest.raises(DuplicateTask):
        tasks.task("name")(one)
    with pytest.raises(DuplicateTask):
        middle.task("name")(one)
    assert len(tasks) == len(middle) == 0


def test_registries_may_include_each_other_themselves_and_twice(tasks: Tasks) -> None:
    other = Tasks()
    for _ in range(2):
        tasks.include(other)
        other.include(tasks)
        tasks.include(tasks)
    task = tasks.task("name")(print)
    assert list(tasks) == list(other) == [task]


def test_what_is_no_registry_is_not_included(tasks: Tasks) -> None:
    with pytest.raises(InvalidHandler, match=r"^include: expected a Tasks registry, got Queue; a Queue has \.tasks"):
        Queue().include(Queue())


# Handles.


def test_a_handle_of_no_queue_says_what_to_do(tasks: Tasks) -> None:
    task = tasks.task("name")(print)
    with pytest.raises(UnknownTask, match=r"^task 'name' belongs to no queue yet: call queue\.include\(tasks\) first"):
        task.add_job({})


def test_handles_add_to_the_queue_that_includes_their_registry(queue: Queue, tasks: Tasks) -> None:
    before = tasks.task("before", priority=1)(print)
    library = Tasks()
    library.include(tasks)
    queue.include(library)
    after = tasks.task("after", priority=2)(print)
    assert [task.add_job().priority for task in (before, after)] == [1, 2]
    assert [info.task_identifier for info in queue.jobs()] == ["before", "after"]


def test_handles_stay_with_the_first_queue(queue: Queue, migrated_url: str, tasks: Tasks) -> None:
    before = tasks.task("before")(print)
    with Queue(migrated_url, schema="another") as second:
        second.migrate()
        for one_of_both in (queue, second):
            one_of_both.include(tasks)
        after = tasks.task("after")(print)
        before.add_job()
        after.add_job()
        assert [info.task_identifier for info in queue.jobs()] == ["before", "after"]
        assert (second.jobs().items, second.tasks.identifiers()) == ([], ["before", "after"])


def test_handles_follow_a_queue_that_is_pointed_elsewhere(migrated_url: str) -> None:
    with Queue("host=/nowhere") as queue:
        task = queue.task(one)
        queue.point_at(migrated_url)
        assert task.add_job([1]).payload == [1]
