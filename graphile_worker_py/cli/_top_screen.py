"""Draws a look at a queue for a terminal of any size, down to 40 columns; a function of what was seen, and no more, but
that who has scrolled too far is brought back.

What comes from the database is somebody else's text: it is shown by `safe`, and never read as markup.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import attrs
from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.table import Table
from rich.text import Text

from graphile_worker_py._looks import Failure, Snapshot, TaskFigures, Worker
from graphile_worker_py.cli._output import lasting, safe, text_of
from graphile_worker_py.cli._top_view import KEYS, Details, Silence, View

GAP = 2
ALARM, WARNING, QUIET, TITLE, CURSOR = "bold red", "yellow", "dim", "bold underline", "reverse"
MOST = 3  # lines about an outage
MEASURE = Console()  # for lines to be broken as it breaks them
HINTS = "q quit  ? help  p pause  s sort  / task  Tab table  Enter open  o job  e running"


@attrs.frozen
class Column:
    """A column: its title, its width (0: what is left), what stands in it, and for how wide a terminal it is."""

    title: str
    width: int
    of: Callable[[Any], str]
    style: Callable[[Any], str] = lambda row: ""
    least: int = 0
    right: bool = True


def short(number: float) -> str:
    """Return a number in five characters: 12, 9,999, 12.3k, 4.56M."""
    if number < 10_000:
        return f"{number:,.0f}"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size * 0.9995:
            return f"{number / size:.3g}{unit}"
    return ""


def brief(seconds: float | None) -> str:
    """Return a length of time in few characters: 3ms, 3.2s, 5m10s; nothing of None."""
    if seconds is None:
        return ""
    if 0 <= seconds < 0.9995:
        return f"{seconds * 1000:.{0 if seconds >= 0.00995 else 1}f}ms"
    return lasting(timedelta(seconds=seconds))


def per_second(rate: float) -> str:
    """Return a rate in few characters."""
    return short(rate) if rate >= 99.95 or rate == 0 else f"{rate:.3g}" if rate >= 0.01 else "<0.01"


def waiting(task: TaskFigures) -> str:
    """Return how many jobs of a task wait for their time."""
    return short(task.scheduled + task.retrying)


def duration(seconds: float | None, task: TaskFigures) -> str:
    """Return how long runs took; with a > how long those have taken that are not over."""
    return "" if seconds is None else brief(seconds) if task.runs is not None else f">{brief(seconds)}"


TASKS = (
    Column("task", 0, lambda task: task.task, right=False),
    Column("ready", 6, lambda task: short(task.ready)),
    Column("run", 5, lambda task: short(task.running)),
    Column("wait", 6, waiting),
    Column("fail", 5, lambda task: short(task.failed), style=lambda task: "red" if task.failed else ""),
    Column("oldest", 7, lambda task: brief(task.oldest_ready), least=60),
    Column("done/s", 6, lambda task: "" if task.runs is None else per_second(task.runs), least=60),
    Column("p50", 7, lambda task: duration(task.p50, task), least=90),
    Column("p95", 7, lambda task: duration(task.p95, task), least=78),
)


def holder(worker: Worker) -> str:
    """Return where a worker is; of one that is none of ours its own name for itself."""
    return worker.id if worker.host is None else f"{worker.host}:{worker.pid}"


def silent(worker: Worker) -> bool:
    """Say whether a worker of ours has missed a sign of life."""
    return worker.beat is not None and worker.dead_after is not None and worker.beat > worker.dead_after / 2


def beat(worker: Worker) -> str:
    """Return when a worker was heard last."""
    return "no beat" if worker.beat is None else brief(worker.beat)


WORKERS = (
    Column("worker", 0, holder, right=False),
    Column("run", 5, lambda worker: short(worker.running)),
    Column("of", 4, lambda worker: "" if worker.threads is None else short(worker.threads)),
    Column("longest", 7, lambda worker: brief(worker.longest_run)),
    Column("heard", 7, beat, style=lambda worker: ALARM if silent(worker) else ""),
    Column("up", 7, lambda worker: brief(worker.up), least=60),
    Column("version", 8, lambda worker: worker.version or "", least=70, right=False),
)


def attempt(failure: Failure) -> str:
    """Return which attempt it was, with a mark after the last."""
    return f"{failure.attempt}{'!' if failure.final else ' '}"


ERRORS = (
    Column("seen", 8, lambda failure: clock(failure.at) if failure.at else "before", right=False),
    Column("id", 9, lambda failure: str(failure.job_id)),
    Column("try", 4, attempt, style=lambda failure: "red" if failure.final else "", least=60),
    Column("task", 18, lambda failure: failure.task, least=60, right=False),
    Column("error", 0, lambda failure: failure.error.strip().split("\n", 1)[0], right=False),
)

RUNNING = (
    Column("for", 7, lambda job: brief(job.seconds)),
    Column("id", 9, lambda job: str(job.id)),
    Column("try", 3, lambda job: str(job.attempt), least=60),
    Column("task", 0, lambda job: job.task, right=False),
    Column("worker", 24, lambda job: job.worker, least=70, right=False),
)


def clock(moment: datetime) -> str:
    """Return a time of day, in UTC as everything here."""
    return f"{moment:%H:%M:%S}"


def screen(
    view: View, snapshot: Snapshot, *, size: tuple[int, int], silence: Silence | None, details: Details | None
) -> RenderableType:
    """Return all there is to see, for a terminal of so many columns and rows."""
    width, height = size
    head = [*header(view, snapshot, width=width, silence=silence)]
    layout = Layout()
    body = Layout(name="body", ratio=1)
    layout.split_column(Layout(Group(*head), size=len(head)), body, Layout(foot(view, width), size=1))
    room = max(1, height - len(head) - 1)
    if view.helps:
        body.update(help_page())
    elif view.job is not None:
        body.update(job_page(view, details, width=width))
    else:
        body.split_column(*_tables(view, snapshot, width=width, room=room))
    return layout


def header(view: View, snapshot: Snapshot, *, width: int, silence: Silence | None) -> list[Text]:
    """Return the lines at the top: what holds for the whole queue, and what is not known."""
    about = "~" if snapshot.read < 1 else ""
    ready = about if not snapshot.ready_counted else ""
    rates, failed = snapshot.rates, snapshot.total("failed")
    parts = [
        Text(clock(snapshot.at) + "Z", style="bold"),
        Text("standby" if snapshot.standby else "primary"),
        Text("in -" if rates.added is None else f"in {per_second(rates.added)}/s"),
        Text("out -" if rates.removed is None else f"out {per_second(rates.removed)}/s"),
        Text(f"ready {ready}{short(snapshot.total('ready'))}", style="bold"),
        Text(f"oldest {brief(snapshot.oldest_ready) or '-'}"),
        Text(f"running {about}{short(snapshot.total('running'))}"),
        Text(f"scheduled {about}{short(snapshot.total('scheduled'))}"),
        Text(f"retrying {about}{short(snapshot.total('retrying'))}"),
        Text(f"failed {about}{short(failed)}", style="red" if failed else ""),
    ]
    if view.paused:
        parts.insert(0, Text("PAUSED", style=CURSOR))
    if view.task:
        parts.append(Text(f"only tasks with {safe(view.task)}", style=WARNING))
    lines = _flowing(parts, width)
    if silence is not None:
        text = f"no answer since {clock(silence.since)}Z: {safe(silence.reason)}"
        lines += (_cut(Text(line, style=ALARM), width) for line in textwrap.wrap(text, width)[:MOST])
    notes = [*_about_counts(snapshot), *snapshot.notes]
    if notes:
        lines.append(_cut(Text("; ".join(map(safe, notes)), style=WARNING), width))
    return lines


def _about_counts(snapshot: Snapshot) -> Iterable[str]:
    if snapshot.read < 1:
        yield f"~ estimated, {snapshot.read:.0%} of the jobs counted"
    elif snapshot.counts_age > 2:
        yield f"counts up to {brief(snapshot.counts_age)} old"


def _flowing(parts: Iterable[Text], width: int) -> list[Text]:
    """Return the parts in as many lines as they need, none of them broken."""
    lines = [Text()]
    for part in parts:
        if lines[-1] and lines[-1].cell_len + GAP + part.cell_len > width:
            lines.append(Text())
        if lines[-1]:
            lines[-1].append(" " * GAP)
        lines[-1].append_text(part)
    return [_cut(line, width) for line in lines]


def _cut(line: Text, width: int) -> Text:
    line.no_wrap = True
    line.truncate(width, overflow="ellipsis")
    return line


def _tables(view: View, snapshot: Snapshot, *, width: int, room: int) -> list[Layout]:
    """Return the tables, one under the other: tasks and workers as they need, up to a share, and errors in the rest."""
    tasks, jobs = view.tasks(snapshot), view.jobs(snapshot)
    workers = min(len(snapshot.workers) + 1, max(3, room // 4)) if room >= 10 else 0
    below = max(4, (room - workers) * 2 // 5, room - workers - max(4, len(tasks) + 1)) if room >= 7 else 0
    name = f"task, by {view.order_name}{' up' if view.ascending else ''}"
    columns = _titled(TASKS, name)
    at = view.cursor if view.pane == "tasks" else None
    shown = [Layout(table(columns, tasks, width=width, room=room - workers - below, cursor=at), ratio=1)]
    if workers:
        more = len(snapshot.workers) - (workers - 1)
        title = f"worker (+{more} more)" if more > 0 else "worker"
        shown.append(Layout(table(_titled(WORKERS, title), snapshot.workers, width=width, room=workers), size=workers))
    if below:
        at = view.cursor if view.pane == "jobs" else None
        columns = RUNNING if view.shows_running else ERRORS
        shown.append(Layout(table(columns, jobs, width=width, room=below, cursor=at), size=below))
    return shown


def _titled(columns: Sequence[Column], title: str) -> Sequence[Column]:
    return attrs.evolve(columns[0], title=title), *columns[1:]


def table(columns: Sequence[Column], rows: Sequence[Any], *, width: int, room: int, cursor: int | None = None) -> Table:
    """Return a table of so many lines, one for the titles, scrolled so that the row under the cursor is seen."""
    columns = [column for column in columns if width >= column.least]
    first = 0
    if cursor is not None:
        cursor = min(cursor, len(rows) - 1)
        first = max(0, min(cursor - (room - 1) // 2, len(rows) - (room - 1)))
    drawn = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, collapse_padding=True, expand=True)
    drawn.header_style = TITLE
    for column in columns:
        drawn.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=column.width or None,
            ratio=None if column.width else 1,
        )
    for number, row in enumerate(rows[first : first + max(0, room - 1)], first):
        cells = (Text(safe(column.of(row)), style=column.style(row)) for column in columns)
        drawn.add_row(*cells, style=CURSOR if number == cursor else "")
    return drawn


def job_page(view: View, details: Details | None, *, width: int) -> RenderableType:
    """Return what is known of one job, from the line on that was scrolled to; that is brought back to the last one."""
    if details is None or details.id != view.job:
        return Text(f"job {view.job}: looking")
    if details.job is None:
        return Text(f"job {view.job} is not there: it is done, was removed, or never was")
    job, told = details.job, details.progress
    fields: dict[str, object] = {
        "id": job.id,
        "task": job.task_identifier,
        "state": job.state,
        "attempts": f"{job.attempts} of {job.max_attempts}",
        "run at": job.run_at,
        "queue": job.queue_name,
        "key": job.key,
        "priority": job.priority,
        "flags": job.flags,
        "added": job.created_at,
        "locked": None if job.locked_by is None else f"{text_of(job.locked_at)} by {job.locked_by}",
    }
    if told is not None:
        share = f" of {told.total}" if told.total else ""
        at = text_of(told.updated_at)
        fields["progress"] = f"{told.done}{share}, attempt {told.attempt}, {at}: {told.message or ''}".rstrip(": ")
    lines = [Text(f"{name:9} ", style="bold").append(text_of(value), style="") for name, value in fields.items()]
    error = (job.last_error or "").strip().split("\n")
    lines += [Text("error", style="bold"), *(Text(safe(line)) for line in error)] if job.last_error else []
    shown = [part for line in lines for part in line.wrap(MEASURE, width)]  # a single line may fill the screen
    view.scrolled = min(view.scrolled, len(shown) - 1)  # only here it is known how many there are
    return Group(*shown[view.scrolled :])


def help_page() -> RenderableType:
    """Return what the keys do."""
    grid = Table.grid(padding=(0, GAP, 0, 0))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column()
    for key, meaning in KEYS:
        grid.add_row(Text(key), Text(meaning))
    return grid


def foot(view: View, width: int) -> Text:
    """Return the last line: what is being typed, or what can be."""
    if view.asks == "task":
        return _cut(Text(f"tasks with: {safe(view.typing)}_"), width)
    if view.asks == "id":
        return _cut(Text(f"open the job of id: {view.typing}_"), width)
    if view.job is not None or view.helps:
        return _cut(Text("Esc back  q quit", style=QUIET), width)
    return _cut(Text(HINTS, style=QUIET), width)
