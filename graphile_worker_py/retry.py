"""When a failed job is tried again: Backoff and other rules, and what a handler may raise to say so itself.

Everything here is pure: a failure, its attempt and a policy give a Verdict, which is written with the failure. Where
nobody says anything the delay is that of Node's worker, and is computed by the database.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import attrs

from graphile_worker_py.checks import check_run_at
from graphile_worker_py.errors import InvalidJobSpec, InvalidPayload, JobCancelled
from graphile_worker_py.jobs import AGAIN, Verdict

logger = logging.getLogger(__name__)

DelayRule: TypeAlias = Callable[[int, BaseException], timedelta | None]
ExceptionTypes: TypeAlias = type[BaseException] | Iterable[type[BaseException]]

NEVER = Verdict(delay=0.0, final=True)


def _delay(name: str, value: object) -> timedelta:
    """Return a timedelta or a number of seconds as a timedelta; refuse all else, what is below 0 or ends no year."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            value = timedelta(seconds=value)
        except (OverflowError, ValueError):
            raise InvalidJobSpec(f"{name}: expected a number of seconds that a timedelta can hold") from None
    if not isinstance(value, timedelta):
        raise InvalidJobSpec(f"{name}: expected a timedelta or a number of seconds, got {type(value).__name__}")
    if value < timedelta(0):
        raise InvalidJobSpec(f"{name}: expected no less than 0, got {value.total_seconds():g} seconds")
    try:
        check_run_at(value)
    except InvalidJobSpec:
        raise InvalidJobSpec(f"{name}: ends after the year 9998; use a shorter one") from None
    return value


def _number(name: str, value: object, *, lowest: float, highest: float) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not lowest <= value <= highest:
        got = f"{value:g}" if isinstance(value, float) else value if isinstance(value, int) else type(value).__name__
        raise InvalidJobSpec(f"{name}: expected a number from {lowest:g} to {highest:g}, got {got}")
    return float(value)


def _base(value: timedelta | float) -> timedelta:
    return _delay("base", value)


def _cap(value: timedelta | float) -> timedelta:
    return _delay("cap", value)


def _factor(value: float) -> float:
    return _number("factor", value, lowest=1, highest=1000)


def _jitter(value: float) -> float:
    return _number("jitter", value, lowest=0, highest=1)


@attrs.frozen
class Backoff:
    """Wait longer after each failure: base, then factor times as long each time, but never longer than cap.

    base, cap: a timedelta or seconds. factor: 1 to 1000; 1 waits equally long each time. jitter: the part of the delay
    that is left to chance, 0 to 1, so that what failed together is not tried again together: 0.1 waits for 90 to 100 %
    of it, 1 for anything up to it. Raises InvalidJobSpec.
    """

    base: timedelta = attrs.field(default=timedelta(seconds=1), converter=_base)
    factor: float = attrs.field(default=2.0, converter=_factor)
    cap: timedelta = attrs.field(default=timedelta(hours=1), converter=_cap)
    jitter: float = attrs.field(default=0.1, converter=_jitter)

    def __call__(self, attempt: int, error: BaseException | None = None) -> timedelta:
        """Return the delay after an attempt, counted from 1; the error makes no difference here."""
        try:
            longest = min(self.cap, self.base * self.factor ** (attempt - 1))
        except OverflowError:
            longest = self.cap
        return longest * (1 - self.jitter * random.random())  # noqa: S311 - nothing secret


class Steering(Exception):
    """Stand for what a handler raises to say what becomes of its job: RetryLater, Snooze, GiveUp. None is an error."""


class GiveUp(Steering):
    """Fail the job for good, whatever attempts are left; the reason is what last_error begins with.

    In a batch it is about one item, which is then not tried again.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class _Later(Steering):
    def __init__(
        self, delay: timedelta | float | None = None, *, run_at: datetime | None = None, reason: str = ""
    ) -> None:
        if (delay is None) == (run_at is None):
            raise InvalidJobSpec(f"{type(self).__name__}: give a delay or a run_at")
        self.delay = None if delay is None else _delay("delay", delay)
        if run_at is not None:
            if not isinstance(run_at, datetime):
                raise InvalidJobSpec(f"run_at: expected an aware datetime, got {type(run_at).__name__}")
            check_run_at(run_at)
        self.run_at = run_at
        self.reason = reason
        super().__init__(reason or (f"in {self.delay}" if run_at is None else f"at {run_at}"))

    def __reduce__(self) -> Any:
        return _remade, (type(self), {"delay": self.delay, "run_at": self.run_at, "reason": self.reason})


def _remade(kind: type[_Later], options: dict[str, Any]) -> _Later:
    return kind(**options)


class RetryLater(_Later):
    """Fail this attempt, and have the next one after a delay (a timedelta or seconds) or at run_at, an aware datetime.

    The attempt is spent; if it was the last one the job has failed for good. Raises InvalidJobSpec.
    """


class Snooze(_Later):
    """Put the job off, by a delay (a timedelta or seconds) or until run_at, an aware datetime: this was no attempt.

    The attempt is given back and last_error stays, so there is no end to it but yours. Raises InvalidJobSpec.
    """


def _types(name: str, value: ExceptionTypes | None) -> tuple[type[BaseException], ...] | None:
    if value is None:
        return None
    kinds: tuple[Any, ...] = (value,) if isinstance(value, type) or not isinstance(value, Iterable) else tuple(value)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise InvalidJobSpec(f"{name}: expected exception types, got {type(kind).__name__}")
    return kinds


def _rule(value: DelayRule | None) -> DelayRule | None:
    if value is not None and (not callable(value) or isinstance(value, type)):
        raise InvalidJobSpec(f"retry: expected a Backoff or a function of attempt and exception, got {value!r:.60}")
    return value


def _retry_on(value: ExceptionTypes | None) -> tuple[type[BaseException], ...] | None:
    return _types("retry_on", value)


def _give_up_on(value: ExceptionTypes | None) -> tuple[type[BaseException], ...] | None:
    return _types("give_up_on", value)


@attrs.frozen
class RetryPolicy:
    """What a task, or a queue for its tasks, says about retries; what is None says nothing. Raises InvalidJobSpec."""

    retry: DelayRule | None = attrs.field(default=None, converter=_rule)
    retry_on: tuple[type[BaseException], ...] | None = attrs.field(default=None, converter=_retry_on)
    give_up_on: tuple[type[BaseException], ...] | None = attrs.field(default=None, converter=_give_up_on)
    retry_invalid: bool = False

    def or_else(self, general: RetryPolicy) -> RetryPolicy:
        """Return this policy, completed from a more general one; the two lists of types belong together."""
        lists = general if self.retry_on is None and self.give_up_on is None else self
        return RetryPolicy(self.retry or general.retry, lists.retry_on, lists.give_up_on, self.retry_invalid)

    def verdict(self, error: BaseException, attempt: int) -> Verdict:
        """Say whether, and when, what failed with this error is tried again; never raises.

        A handler that ends because its pool stops is no mistake of its job's; of a job that somebody cancelled, the row
        says that there is no attempt left.
        """
        if isinstance(error, JobCancelled):
            return AGAIN
        if isinstance(error, _Later):
            delay = 0.0 if error.delay is None else error.delay.total_seconds()
            return Verdict(delay, error.run_at, snoozed=isinstance(error, Snooze))
        if self._gives_up(error):
            return NEVER
        return AGAIN if self.retry is None else _asked(self.retry, error, attempt)

    def _gives_up(self, error: BaseException) -> bool:
        return (
            isinstance(error, GiveUp)
            or (isinstance(error, InvalidPayload) and not self.retry_invalid)
            or (self.give_up_on is not None and isinstance(error, self.give_up_on))
            or (self.retry_on is not None and not isinstance(error, self.retry_on))
        )


def _asked(rule: DelayRule, error: BaseException, attempt: int) -> Verdict:
    """Return what a rule says; one that does not work must not cost the job its retry."""
    try:
        delay = rule(attempt, error)
        if delay is None:
            return NEVER
        if not isinstance(delay, timedelta):
            raise InvalidJobSpec(f"a retry rule returns a timedelta or None, got {type(delay).__name__}")
        return Verdict(_delay("delay", max(delay, timedelta(0))).total_seconds())
    except BaseException:
        logger.exception("a retry rule failed, so the usual delay holds")
        return AGAIN


def together(verdicts: Sequence[Verdict], attempt: int) -> Verdict:
    """Return the one verdict for several items of a job that are tried again: none is before its time."""
    if all(verdict is AGAIN for verdict in verdicts):
        return AGAIN
    delays = [math.exp(min(attempt, 10)) if verdict.delay is None else verdict.delay for verdict in verdicts]
    moments = [verdict.run_at for verdict in verdicts if verdict.run_at is not None]
    return Verdict(max(delays), max(moments, default=None), snoozed=all(verdict.snoozed for verdict in verdicts))
