"""The admin: what is in the queue, quickly also where there are millions of jobs, and what one can do about jobs.

Nothing is edited there; actions, for who may change jobs, go through the queue, by its rules. Payloads and errors are
in the page of one job only, and not even read for the list. What is counted is at most MOST_COUNTED.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import BooleanField, Case, F, Q, Value, When
from django.db.models.functions import Greatest, Least, Now
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.html import format_html

from graphile_worker_py.contrib.django import conf
from graphile_worker_py.contrib.django.admin_actions import CronActions, JobActions, WithATime
from graphile_worker_py.contrib.django.app_queue import job_id
from graphile_worker_py.contrib.django.models import CronItem, Job, NamedQueue, Task, Worker
from graphile_worker_py.cron.known import PAUSED

MOST_COUNTED = 10_000
MOST_TASKS = 200  # in the filter
MOST_SHOWN = 100_000  # characters of a payload
# Python reads neither infinity nor the years that PostgreSQL knows besides.
FIRST, LAST = (datetime(year, 1, 2, tzinfo=timezone.utc) for year in (1, 9999))

FREE = Q(locked_at__isnull=True)
SPENT = Q(attempts__gte=F("max_attempts"))
STATES = {
    "ready": FREE & ~SPENT & Q(run_at__lte=Now()),
    "scheduled": FREE & ~SPENT & Q(run_at__gt=Now(), attempts=0),
    "running": ~FREE,
    "retrying": FREE & ~SPENT & Q(run_at__gt=Now(), attempts__gt=0),
    "failed": FREE & SPENT,
}


class CappedPaginator(Paginator):
    """Counts no further than MOST_COUNTED: the later pages are not reached by leafing, but by a filter."""

    @cached_property
    def count(self) -> int:
        """Return how many there are, or MOST_COUNTED."""
        return int(self.object_list.order_by()[:MOST_COUNTED].count())


class ReadOnly(admin.ModelAdmin):
    """A table to look at."""

    paginator = CappedPaginator
    show_full_result_count = False
    actions: Any = None

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows, from the database of the jobs."""
        return super().get_queryset(request).using(conf.options().alias)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds a row here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits one."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes one."""
        return False


class StateFilter(admin.SimpleListFilter):
    """The states that `stats` counts."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return all."""
        return [(state, state) for state in STATES]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the jobs of the one that was chosen."""
        return queryset.filter(STATES[self.value()]) if self.value() in STATES else queryset


class TaskFilter(admin.SimpleListFilter):
    """The tasks by name; of very many the first."""

    title = "task"
    parameter_name = "task"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return them."""
        names = model_admin.get_queryset(request).db
        found = Task.objects.using(names).order_by("identifier").values_list("identifier", flat=True)
        return [(name, name) for name in found[:MOST_TASKS]]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the jobs of the one that was chosen."""
        if not self.value():
            return queryset
        tasks = Task.objects.using(queryset.db).filter(identifier=self.value())
        return queryset.filter(task__in=list(tasks))  # by its number PostgreSQL knows whether it is a rare one


@admin.register(Job)
class JobAdmin(JobActions, ReadOnly):
    """Jobs: the newest first, or those of a state, of a task, of a key, or the one of an id."""

    actions = ("run_now", "reschedule", "fail_for_good", "complete", "cancel")
    action_form = WithATime
    list_display = ("id", "task", "state", "queue", "key", "priority", "due", "tries", "locked_by")
    list_filter = (StateFilter, TaskFilter)
    list_select_related = ("task", "queue")
    ordering = ("-id",)
    sortable_by = ("id",)
    search_fields = ("key",)
    search_help_text = "The id or the whole key of a job"
    fields = (
        *("id", "task", "state", "queue", "key", "shown_payload", "flags", "priority", "due", "tries", "shown_error"),
        *("created_at", "updated_at", "locked_at", "locked_by", "revision"),
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return jobs with their state and when they are due, without what may be large."""
        state = Case(*(When(condition, then=Value(name)) for name, condition in STATES.items()))
        due = Greatest(Least("run_at", Value(LAST)), Value(FIRST))
        jobs = super().get_queryset(request).annotate(in_state=state, due_at=due)
        return jobs.defer("run_at", "payload", "last_error")

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Return the jobs of that id or key, both by an index."""
        if search_term:
            number = job_id(search_term)
            queryset = queryset.filter(Q(key=search_term) | (Q() if number is None else Q(pk=number)))
        return queryset, False

    @admin.display
    def state(self, job: Any) -> str:
        """Return what `stats` would count it as."""
        return str(job.in_state)

    @admin.display
    def due(self, job: Any) -> datetime:
        """Return when it is, or was, to be run."""
        return job.due_at  # type: ignore[no-any-return]

    @admin.display
    def tries(self, job: Any) -> str:
        """Return how often it was tried, and how often it may be."""
        return f"{job.attempts} of {job.max_attempts}"

    @admin.display(description="payload")
    def shown_payload(self, job: Any) -> Any:
        """Return the payload, to be read by people."""
        text = json.dumps(job.payload, indent=2, ensure_ascii=False)
        text = text.encode("utf-8", "backslashreplace").decode()  # half a character, which Node may add, is no page's
        return format_html("<pre>{}{}</pre>", text[:MOST_SHOWN], "…" if len(text) > MOST_SHOWN else "")

    @admin.display(description="last error")
    def shown_error(self, job: Any) -> Any:
        """Return the error with its lines."""
        return format_html("<pre>{}</pre>", job.last_error or "")


@admin.register(NamedQueue)
class NamedQueueAdmin(ReadOnly):
    """Named queues, and which worker holds them."""

    list_display = ("queue_name", "locked_at", "locked_by")
    search_fields = ("queue_name",)
    ordering = ("queue_name",)


@admin.register(CronItem)
class CronItemAdmin(CronActions, ReadOnly):
    """Cron items, to be paused and resumed."""

    actions = ("pause", "resume")
    list_display = ("identifier", "known_since", "last", "paused")
    ordering = ("identifier",)
    fields = list_display
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return items; a pause is a last execution at the end of time, which is not to be shown as one."""
        is_paused = Q(last_execution__gte=PAUSED)
        paused = Case(When(is_paused, then=True), default=False, output_field=BooleanField())
        last = Case(When(~is_paused, then=F("last_execution")))
        return super().get_queryset(request).annotate(is_paused=paused, last_time=last).defer("last_execution")

    @admin.display(boolean=True)
    def paused(self, item: Any) -> bool:
        """Return whether it is paused."""
        return bool(item.is_paused)

    @admin.display(description="last execution")
    def last(self, item: Any) -> datetime | None:
        """Return the minute it was last due and done, None where it never was, and while it is paused."""
        return item.last_time  # type: ignore[no-any-return]


@admin.register(Worker)
class WorkerAdmin(ReadOnly):
    """Worker pools that are alive, or were a minute ago."""

    list_display = ("id", "host", "pid", "concurrency", "version", "started_at", "beat_at")
    ordering = ("host", "pid")
