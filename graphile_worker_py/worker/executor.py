"""A job becomes an outcome: the handler is called, its batch settled, what it raised put into words.

Nothing here touches the database but for what a handler asks of its context. Anything a handler raises is its own
failure, SystemExit and KeyboardInterrupt included: a crew thread never dies of it.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import os
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, MappingView, Set
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs

from graphile_worker_py._grip import INTERRUPTS, Grip
from graphile_worker_py.errors import BatchResultMismatch, InvalidHandler
from graphile_worker_py.jobs import Job, Kind, Outcome
from graphile_worker_py.results import as_json
from graphile_worker_py.retry import NEVER, RetryPolicy, together
from graphile_worker_py.tasks import Around, Task
from graphile_worker_py.worker.context import JobContext

OURS = str(Path(__file__).parents[1]) + os.sep
NODES_POLICY = RetryPolicy()
LONGEST_ERROR = 16_000  # characters of last_error; the table is scanned on every claim and should stay small


class _ItemsFailed(Exception):
    """Some items of a batch failed: their errors, by their places."""

    def __init__(self, errors: dict[int, BaseException], items: int) -> None:
        super().__init__(f"{len(errors)} of {items} items")
        self.errors = errors
        self.items = items


def execute(
    task: Task[Any, Any],
    job: Job,
    context: Callable[[Job], JobContext],
    *,
    policy: RetryPolicy = NODES_POLICY,
    around: Around | None = None,
    grip: Grip | None = None,
) -> Outcome:
    """Call the task's handler for a job and return what became of it; never raises.

    `policy` holds where the task has none; around: entered around the handler, outside the task's own; grip: that of
    this thread, if it is to be interrupted. A job is not over before what its handler has handed to helper threads is.
    """
    began = time.perf_counter()
    call: Callable[..., object] = task.handler
    if around is not None or task.around is not None:
        call = functools.partial(_within, task=task, around=around)
    made = context(job) if task.wants_context or call is not task.handler else None
    try:
        if grip is not None:
            grip.take(job, began, made)
        try:
            payload = job.payload
            items = len(payload) if isinstance(payload, list) else None  # as they came: the handler may change its list
            if task.read is not None:
                payload = task.read(payload)
            result = _called(call, payload, made)
            if result is not None:
                _settle(items, result)
        finally:
            if grip is not None:
                grip.let_go()
        outcome = Outcome(job, Kind.COMPLETED, time.perf_counter() - began)
        if task.keep_result is not None:
            kept = made.result if result is None and made is not None else result
            outcome = attrs.evolve(outcome, result=as_json(kept))
    except _ItemsFailed as failed:
        outcome = _partly_failed(job, failed, task.retry.or_else(policy), seconds=time.perf_counter() - began)
    except BaseException as error:
        if grip is not None and isinstance(error, INTERRUPTS):
            _clear_up(error, job, context=made, grip=grip)
        verdict = task.retry.or_else(policy).verdict(error, job.attempts)
        seconds = time.perf_counter() - began
        outcome = Outcome(job, Kind.FAILED, seconds, describe(error), error, verdict=verdict)
    return outcome if made is None else _decided(outcome, made, task, policy=policy)


def _decided(outcome: Outcome, context: JobContext, task: Task[Any, Any], *, policy: RetryPolicy) -> Outcome:
    """Return the outcome as far as the handler has left it to a transaction; one that it left open is its failure."""
    left = context.left_to_the_row(outcome)
    if left.exception is None or outcome.exception is not None:
        return left
    verdict = task.retry.or_else(policy).verdict(left.exception, left.job.attempts)
    return attrs.evolve(left, verdict=verdict)


def _partly_failed(job: Job, failed: _ItemsFailed, policy: RetryPolicy, *, seconds: float) -> Outcome:
    """Return the outcome of a batch: it goes on with the items that are tried again, or keeps all if none is."""
    verdicts = {place: policy.verdict(error, job.attempts) for place, error in failed.errors.items()}
    given_up = tuple(place for place, verdict in verdicts.items() if verdict.final)
    again = tuple(place for place, verdict in verdicts.items() if not verdict.final)
    spent = not again or job.attempts >= job.max_attempts
    verdict = together([verdicts[place] for place in again], job.attempts) if again else NEVER
    if given_up:  # which is a failure, and has to be told as one
        verdict = attrs.evolve(verdict, snoozed=False)
    return Outcome(
        job,
        Kind.FAILED,
        seconds,
        _joined(failed, given_up),
        next(iter(failed.errors.values())),
        kept=tuple(verdicts) if spent else again,
        verdict=verdict,
        given_up=given_up,
    )


def _clear_up(error: BaseException, job: Job, *, context: JobContext | None, grip: Grip) -> None:
    """Do what an interrupt may have kept from being done, and let it say why it came.

    The thread is the job's until its helpers have ended, so that one that does not end is reported.
    """
    reason = grip.reason(job)
    if reason is not None and not error.args:
        error.args = reason.args
    if context is not None:
        grip.job = job
        context.drop_helpers()
        context.wait_for_helpers()
    grip.job = grip.context = None


def _called(call: Callable[..., object], payload: object, context: JobContext | None) -> object:
    """Call the handler in context variables of its own, so that none reaches the thread's next job."""
    if context is None:
        return contextvars.Context().run(call, payload)
    try:
        return contextvars.Context().run(call, payload, context)
    finally:
        context.wait_for_helpers()


def _within(payload: object, context: JobContext, *, task: Task[Any, Any], around: Around | None) -> object:
    """Call the handler inside the queue's manager and its task's; what they suppress is suppressed."""
    result: object = None
    with ExitStack() as stack:
        for factory in (around, task.around):
            if factory is not None:
                stack.enter_context(factory(context))
        result = task.handler(payload, context) if task.wants_context else task.handler(payload)
        context.wait_for_helpers()
    return result


def _settle(items: int | None, result: object) -> None:
    """Wait for the futures a handler returned; raise what failed, with the places of a batch's failed items."""
    if isinstance(result, Future):
        result.result()
    elif inspect.isawaitable(result):
        _never_awaited(result)
        raise InvalidHandler("the handler returned a coroutine, which nobody awaits: call asyncio.run(...) in it")
    elif items is not None and isinstance(result, (list, tuple)):
        if len(result) != items:
            raise BatchResultMismatch(
                f"the handler returned {len(result)} results for {items} items: return one for each, or None"
            )
        errors = {place: error for place, entry in enumerate(result) if (error := _item_error(entry)) is not None}
        if errors:
            raise _ItemsFailed(errors, items)
    elif items is not None and isinstance(result, (Iterator, AsyncIterator, Set, MappingView)):
        raise InvalidHandler(
            f"the handler returned a {type(result).__name__} for a batch, which would not be looked into: "
            "return a list with one entry for each item, such as ctx.map(...), or None"
        )


def _never_awaited(coroutine: object) -> None:
    getattr(coroutine, "close", lambda: None)()


def _item_error(entry: object) -> BaseException | None:
    if isinstance(entry, Future):
        try:
            return entry.exception()
        except INTERRUPTS:
            raise  # the job's, not this item's
        except BaseException as error:  # a cancelled future raises instead of telling
            return error
    if inspect.isawaitable(entry):
        _never_awaited(entry)
        return InvalidHandler("this entry is a coroutine, which nobody awaits: return what asyncio.run(...) gives")
    return entry if isinstance(entry, BaseException) else None


def _joined(failed: _ItemsFailed, given_up: tuple[int, ...]) -> str:
    """Join the errors of a batch, each with its item's position, in the room of one."""
    dropped = f", {len(given_up)} of them given up" if given_up else ""
    parts = [f"Batch failures: {failed}{dropped}"]
    room = max(200, LONGEST_ERROR // len(failed.errors))
    for index, error in failed.errors.items():
        parts.append(f"[{index}]{' (given up)' if index in given_up else ''} {describe(error, longest=room)}")
        if sum(map(len, parts)) > LONGEST_ERROR:
            break
    return shorten("\n\n".join(parts))


def describe(error: BaseException, *, longest: int = LONGEST_ERROR) -> str:
    """Put an exception into words for last_error: its message, then its traceback, at most `longest` characters."""
    try:
        own = own_frames(error)
        message = "".join(traceback.format_exception_only(type(error), error)).strip()
        lines = "".join(traceback.format_exception(type(error), error, own))
        text = f"{shorten(message, longest // 2)}\n\n{lines}" if own is not None else message
    except BaseException:  # an exception whose own methods raise
        text = f"{type(error).__name__} (it could not be put into words)"
    return shorten(text, longest)


def own_frames(error: BaseException) -> TracebackType | None:
    """Return the traceback of what a handler raised, without our frames, which say nothing about it."""
    own = error.__traceback__
    while own is not None and own.tb_frame.f_code.co_filename.startswith(OURS):
        own = own.tb_next
    return own


def shorten(text: str, longest: int = LONGEST_ERROR) -> str:
    """Return text as PostgreSQL can store it, without its middle if it is longer than `longest` characters."""
    if len(text) > longest:
        head = longest // 3
        text = f"{text[:head]}\n[… {len(text) - longest} characters left out …]\n{text[head - longest :]}"
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
