"""Tasks of Django's, in a module that nobody imports of itself."""

import asyncio
import threading
from datetime import timedelta

from django.db import connection, transaction

from graphile_worker_py import Backoff, GiveUp, RetryLater, Snooze
from pigeon.models import Letter

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task

entered, leave = threading.Event(), threading.Event()  # for tests that look while a task runs


@task
def carry(letter, *, to="nobody"):
    """Take a letter to somebody; what it returns is not kept."""
    Letter.objects.create(to=to)
    return object()


@task(backend="kept")
def divide(a, b=2):
    """Return a result, or fail."""
    return {"quotient": a / b}


@task(backend="kept", takes_context=True)
def tell_attempt(context, fails=0):
    """Fail so often, then tell which attempt it was."""
    context.job_context.logger.debug("on the way")
    if context.attempt <= fails:
        raise ValueError(f"attempt {context.attempt}")
    return [context.attempt, context.task_result.id, len(context.task_result.errors)]


@task(backend="kept", priority=10)
async def count_letters(seconds=0.0):
    """Ask the ORM, from a coroutine."""
    await asyncio.sleep(seconds)
    return await Letter.objects.acount()


@task(backend="kept")
def count_from_outside():
    """Return a coroutine, as a decorator around one may."""
    return count_letters.func()


@task(backend="kept", takes_context=True)
def steer(context, how):
    """Say what becomes of the job, once."""
    if context.attempt == 1 and not Letter.objects.filter(to=how).exists():
        Letter.objects.create(to=how)
        raise {"give up": GiveUp("no use"), "later": RetryLater(1), "snooze": Snooze(1)}[how]
    return context.attempt


@task(backend="kept", takes_context=True)
def complete_together(context, to, fails=False):
    """Write a letter in the transaction that completes the job."""
    with transaction.atomic():
        Letter.objects.create(to=to)
        context.job_context.complete(connection)
        if fails:
            raise ValueError("after all")


@task(backend="kept")
def wait_inside():
    """Tell that it runs, and go on when it may."""
    entered.set()
    assert leave.wait(30)


@task(backend="once")
def fail():
    """Fail for good, for this backend does not retry."""
    raise LookupError("not there")


@task(backend="once")
def return_an_object():
    """Return what JSON cannot carry."""
    return object()


# How to run a task is told to its class, which @task does from Django 6.1 on, and the backport does.
PATIENT = {"max_attempts": 5, "retry": Backoff(base=timedelta(minutes=5)), "timeout": 7, "concurrency": 1}
