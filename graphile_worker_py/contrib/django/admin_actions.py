"""What can be done about rows in the admin: through the queue, in the request's transaction, told and logged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import ValidationError
from django.db.models import F
from django.http import HttpRequest
from django.utils import timezone

from graphile_worker_py import Cancellation
from graphile_worker_py.contrib.django import conf
from graphile_worker_py.contrib.django.app_queue import queue
from graphile_worker_py.contrib.django.models import Job
from graphile_worker_py.errors import GraphileWorkerError

MOST_CHANGED = 1_000  # rows, by one action

Keys = list[Any]


class WithATime(ActionForm):
    """The list of actions, and a time for the one that needs it."""

    run_at = forms.CharField(
        required=False, label="at (to reschedule)", widget=forms.DateTimeInput(attrs={"type": "datetime-local"})
    )


class Acting:
    """Of a ModelAdmin: how it carries out an action on the rows that were chosen, for who may change them."""

    def has_act_permission(self: Any, request: HttpRequest) -> bool:
        """Return whether the user may do more than look."""
        options = self.opts
        return bool(request.user.has_perm(f"{options.app_label}.change_{options.model_name}"))

    def act(self: Any, request: HttpRequest, chosen: Any, *, change: Callable[[Keys], Iterable[Any]], did: str) -> None:
        """Call `change` with the keys of the chosen rows; it returns those it has changed, which is then told."""
        keys = list(chosen.order_by("pk").values_list("pk", flat=True)[: MOST_CHANGED + 1])
        if len(keys) > MOST_CHANGED:
            text = f"More than {MOST_CHANGED:,} are chosen, and nothing was done: choose fewer, by a filter perhaps."
            self.message_user(request, text, messages.ERROR)
            return
        try:
            changed = list(change(keys))
        except (GraphileWorkerError, ValidationError) as error:
            text = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
            self.message_user(request, f"Nothing was done: {text}", messages.ERROR)
            return
        LogEntry.objects.log_actions(request.user.pk, [self.model(pk=key) for key in changed], CHANGE, did)
        left = len(keys) - len(changed)
        text = f"{did}: {len(changed)}." + (f" Left as they are, for they run or are gone: {left}." if left else "")
        self.message_user(request, text, messages.WARNING if left else messages.SUCCESS)


class JobActions(Acting):
    """What can be done about jobs."""

    @admin.action(description="Run now", permissions=["act"])
    def run_now(self, request: HttpRequest, chosen: Any) -> None:
        """Make jobs due; what has failed for good gets all its attempts anew."""
        self.act(request, chosen, change=_run_now, did="Made due")

    @admin.action(description="Reschedule to the time given", permissions=["act"])
    def reschedule(self, request: HttpRequest, chosen: Any) -> None:
        """Have jobs run at that time."""

        def change(keys: Keys) -> Iterable[Any]:
            if not request.POST.get("run_at"):
                raise ValidationError("Fill in the time beside the action.")
            run_at = forms.DateTimeField().clean(request.POST["run_at"])
            if timezone.is_naive(run_at):  # where USE_TZ is off
                run_at = timezone.make_aware(run_at)
            return [job.id for job in queue.reschedule_jobs(keys, run_at=run_at)]

        self.act(request, chosen, change=change, did="Rescheduled")

    @admin.action(description="Fail for good", permissions=["act"])
    def fail_for_good(self, request: HttpRequest, chosen: Any) -> None:
        """Leave jobs no attempts."""
        reason = f"failed in the admin by {request.user.get_username()}"

        def change(keys: Keys) -> Iterable[Any]:
            return [job.id for job in queue.permanently_fail_jobs(keys, reason)]

        self.act(request, chosen, change=change, did="Failed for good")

    @admin.action(description="Complete, without running them", permissions=["act"])
    def complete(self, request: HttpRequest, chosen: Any) -> None:
        """Delete jobs as if they were done."""
        self.act(request, chosen, change=_complete, did="Completed")

    @admin.action(description="Cancel, also while they run", permissions=["act"])
    def cancel(self, request: HttpRequest, chosen: Any) -> None:
        """End jobs, wherever they run."""
        reason = f"cancelled in the admin by {request.user.get_username()}"

        def change(keys: Keys) -> Iterable[Any]:
            return [key for key in keys if queue.cancel(key, reason) is not Cancellation.TOO_LATE]

        self.act(request, chosen, change=change, did="Cancelled")


class CronActions(Acting):
    """What can be done about cron items."""

    @admin.action(description="Pause", permissions=["act"])
    def pause(self, request: HttpRequest, chosen: Any) -> None:
        """Let no worker add jobs for them."""
        self.act(request, chosen, change=lambda keys: _each(keys, queue.crontab.pause), did="Paused")

    @admin.action(description="Resume", permissions=["act"])
    def resume(self, request: HttpRequest, chosen: Any) -> None:
        """Let them go on from now."""
        self.act(request, chosen, change=lambda keys: _each(keys, queue.crontab.resume), did="Resumed")


def _each(keys: Keys, change: Callable[[str], None]) -> Keys:
    for key in keys:
        change(key)
    return keys


def _run_now(keys: Keys) -> Iterable[Any]:
    jobs = Job.objects.using(conf.options().alias).filter(pk__in=keys, attempts__gte=F("max_attempts"))
    spent = set(jobs.values_list("pk", flat=True))
    changed = queue.reschedule_jobs(spent, run_at=timedelta(0), attempts=0)
    changed += queue.reschedule_jobs(set(keys) - spent, run_at=timedelta(0))
    return [job.id for job in changed]


def _complete(keys: Keys) -> Iterable[Any]:
    return [job.id for job in queue.complete_jobs(keys)]
