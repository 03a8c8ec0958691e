"""Which jobs a command is about: those of ids, or those that filters find; and the question before many are changed.

What a filter finds is counted and asked about first, and looked at again right before it is changed: somebody may have
thought about the question for a while. Who names ids is not asked, and told of each that was left alone.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypedDict, TypeVar, cast, get_args

import attrs
import click

from graphile_worker_py import JobCount, Queue
from graphile_worker_py.cli._options import span
from graphile_worker_py.cli._output import confirm, counted, lasting, note, say
from graphile_worker_py.jobs import JobState

F = TypeVar("F", bound=Callable[..., Any])

PATIENCE = "0.8s"
AT_A_TIME = 1000  # jobs that are changed by one statement
LARGEST_PAGE = 10_000
CAP = 10_000  # to which jobs are counted
MOST_NAMED = 5  # tasks in a question, ids in a complaint


class Filters(TypedDict, total=False):
    """What `queue.jobs` is told to look for."""

    state: JobState
    task: str
    queue_name: str
    job_key: str
    priority: int
    error: str


@attrs.frozen(kw_only=True)
class Choice:
    """The jobs that a command was told to change: `ids`, or at most `limit` that the filters find in time."""

    ids: tuple[int, ...]
    filters: Filters
    limit: int
    patience: float
    yes: bool


@attrs.frozen
class Found:
    """What filters found: the task of each id; how many `more` there are; `gave_up`: up to which id was looked."""

    tasks: dict[int, str]
    more: JobCount
    gave_up: int | None


def read_patience(context: click.Context, parameter: click.Parameter, text: str) -> float:
    """Return seconds; raise click.BadParameter for what is no time to wait."""
    wanted = span(text)
    if not wanted or wanted > timedelta(days=1):
        raise click.BadParameter("expected a time of at most a day, such as 10s or 5m")
    return max(wanted.total_seconds(), 0.001)


def patience_option(function: F) -> F:
    """Add --patience, in seconds."""
    option = click.option(
        "--patience",
        metavar="TIME",
        default=PATIENCE,
        show_default=True,
        callback=read_patience,
        help="How long to look through the jobs at most, for what has no index.",
    )
    return option(function)


def filter_options(function: F) -> F:
    """Add the filters, which arrive together as `filters`, and --patience."""

    @functools.wraps(function)
    def collected(**given: Any) -> Any:
        found = {name: value for name in Filters.__annotations__ if (value := given.pop(name)) is not None}
        return function(filters=cast("Filters", found), **given)

    for option in (
        patience_option,
        click.option("--error", metavar="TEXT", help="Only jobs with this text in their last error."),
        click.option("--priority", metavar="N", type=int, help="Only jobs of this priority."),
        click.option("--key", "job_key", metavar="KEY", help="Only the job of this key."),
        click.option("--queue", "queue_name", metavar="NAME", help="Only jobs of this named queue."),
        click.option("--task", metavar="NAME", help="Only jobs of this task."),
        click.option(
            "--state",
            metavar="STATE",
            type=click.Choice(get_args(JobState)),
            help="Only jobs that are ready, scheduled, running, retrying, or failed for good.",
        ),
    ):
        collected = option(collected)
    return cast("F", collected)


def choosing(function: F) -> F:
    """Add the argument IDS, the filters, --limit and --yes, which arrive together as `choice`."""

    @functools.wraps(function)
    def collected(**given: Any) -> Any:
        choice = Choice(**{field.name: given.pop(field.name) for field in attrs.fields(Choice)})
        if choice.ids and choice.filters:
            raise click.UsageError("give ids or filters, not both")
        if not choice.ids and not choice.filters:
            raise click.UsageError("which jobs? give ids, or filters such as --state failed --task NAME")
        return function(choice=choice, **given)

    for option in (
        click.option("--yes", is_flag=True, help="Do not ask before jobs that filters found are changed."),
        click.option(
            "--limit",
            metavar="N",
            type=click.IntRange(1, 10_000_000),
            default=1000,
            show_default=True,
            help="How many jobs that filters find are changed at most, from the lowest id.",
        ),
        filter_options,
        click.argument("ids", metavar="[ID]...", type=int, nargs=-1),
    ):
        collected = option(collected)
    return cast("F", collected)


def change(
    queue: Queue,
    choice: Choice,
    *,
    question: str,
    done: Callable[[set[int]], str],
    act: Callable[[list[int]], set[int]],
) -> None:
    """Change the chosen jobs by `act`, which returns the ids of those it could, and say what was `done`.

    `question` is about jobs, such as "Cancel". Raises click.ClickException if jobs named by their ids were left alone.
    """
    ids = list(dict.fromkeys(choice.ids)) or _agreed(queue, choice, question)
    if not ids:
        return
    changed: set[int] = set()
    try:
        for start in range(0, len(ids), AT_A_TIME):
            some = ids[start : start + AT_A_TIME]
            if choice.filters:
                some = [job.id for job in queue.jobs(**choice.filters, ids=some, limit=AT_A_TIME)]
            changed |= act(some)
    except BaseException:
        if changed:  # each thousand is committed by itself
            note(f"Before it went wrong: {done(changed)}")
        raise
    if changed or not choice.ids:
        say(done(changed))
    left = [id for id in ids if id not in changed]
    if left and choice.ids:
        raise click.ClickException(_complaint(queue, left))
    if left:
        note(f"{counted(len(left), 'job')} left alone, running or changed meanwhile.")


def _agreed(queue: Queue, choice: Choice, question: str) -> list[int]:
    """Return the ids of what the filters found, if that is to be changed."""
    found = find(queue, choice)
    if found.gave_up is not None:
        note(gave_up(found.gave_up, choice.patience))
    if not found.tasks:
        note("No job matches; nothing was changed.")
        return []
    some = counted(len(found.tasks), "job")
    if found.more.number:
        total = attrs.evolve(found.more, number=found.more.number + len(found.tasks))
        some = f"{len(found.tasks):,} of {how_many(total)}"
    confirm(f"{question} {some} ({_by_task(found.tasks)})?", yes=choice.yes)
    return list(found.tasks)


def find(queue: Queue, choice: Choice) -> Found:
    """Return the jobs that the filters find, up to the limit, and how many more there are."""
    until = time.monotonic() + choice.patience
    tasks: dict[int, str] = {}
    after: int | None = 0
    while after is not None and len(tasks) < choice.limit:
        size, left = min(LARGEST_PAGE, choice.limit - len(tasks)), max(0.001, until - time.monotonic())
        page = queue.jobs(**choice.filters, limit=size, after=after, patience=left)
        tasks |= {job.id: job.task_identifier for job in page}
        after = page.next
        if page.gave_up:
            return Found(tasks, JobCount(0, exact=False), after)
    if after is None:
        return Found(tasks, JobCount(0, exact=True), None)
    left = max(0.001, until - time.monotonic())
    return Found(tasks, queue.jobs.count(**choice.filters, after=after, at_most=CAP, patience=left), None)


def gave_up(reached: int, patience: float) -> str:
    """Return the sentence that a search has ended before it was through."""
    return (
        f"Looked at the jobs up to id {reached} only, in {lasting(timedelta(seconds=patience))}: "
        "--patience 1m looks for longer."
    )


def how_many(count: JobCount) -> str:
    """Return a count of jobs in words, also where it was not finished: because it is capped, or for lack of time."""
    if count.exact:
        return counted(count.number, "job")
    if count.number >= CAP:
        return f"more than {counted(count.number, 'job')}"
    return f"at least {counted(max(count.number, 1), 'job')}"


def _by_task(tasks: dict[int, str]) -> str:
    """Return how many of the jobs are of what task, the most first."""
    counts = Counter(tasks.values()).most_common()
    named = [f"{task} {number:,}" for task, number in counts[:MOST_NAMED]]
    others = len(counts) - MOST_NAMED
    return ", ".join([*named, *([f"and of {counted(others, 'task')} more"] if others > 0 else [])])


def _complaint(queue: Queue, ids: list[int]) -> str:
    """Return the sentence that these jobs were left alone, and why."""
    first = ids[:MOST_NAMED]
    states = {job.id: job.state for job in queue.jobs(ids=first)}
    named = [f"{id} ({states.get(id, 'not there')})" for id in first]
    others = len(ids) - MOST_NAMED
    return f"left alone: {', '.join(named)}{f' and {others:,} more' if others > 0 else ''}"
