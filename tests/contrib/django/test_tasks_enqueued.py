"""Django's tasks become jobs: what of them, when, and what is refused."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta, timezone
from functools import partial

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connection, transaction
from django.test import SimpleTestCase, TestCase, override_settings
from django.utils import timezone as django_timezone
from pigeon import errands
from pigeon.models import Letter

from graphile_worker_py.contrib.django import GraphileWorkerBackend, GraphileWorkerTask, queue
from graphile_worker_py.contrib.django.tasks_framework import (
    InvalidTask,
    TaskResultStatus,
    task_backends,
    task_enqueued,
)

try:
    from django.tasks import default_task_backend, task
except ImportError:
    from django_tasks import default_task_backend, task

LATER = datetime(2040, 2, 29, 12, tzinfo=timezone.utc)


def job_of(result):
    job = queue.job(int(result.id))
    assert job is not None
    return job


class Enqueued(TestCase):
    """Each test is in a transaction, whose jobs it alone sees."""

    def test_a_task_is_a_job_under_its_module_path(self) -> None:
        result = errands.carry.enqueue("a letter", to="ann")
        job = job_of(result)
        assert (job.task_identifier, job.flags) == ("pigeon.errands.carry", ("queue:default",))
        assert job.payload == {"args": ["a letter"], "kwargs": {"to": "ann"}}
        assert (job.priority, job.max_attempts, job.queue_name, job.key) == (0, 25, None, None)
        assert (result.status, result.task, result.backend) == (TaskResultStatus.READY, errands.carry, "default")
        assert (result.args, result.kwargs, result.attempts) == (["a letter"], {"to": "ann"}, 0)
        assert (result.enqueued_at, result.started_at, result.finished_at) == (job.created_at, None, None)
        assert not result.is_finished
        with pytest.raises(ValueError, match="Task has not finished yet"):
            _ = result.return_value

    def test_what_using_says(self) -> None:
        for priority in (-100, 0, 100):
            assert job_of(errands.carry.using(priority=priority).enqueue("x")).priority == -priority
        job = job_of(errands.carry.using(queue_name="night", run_after=LATER).enqueue("x"))
        assert (job.flags, job.run_at, job.queue_name) == (("queue:night",), LATER, None)
        ours = {"max_attempts": 2, "job_key": "x", "job_key_mode": "preserve_run_at", "serial_queue": "ann"}
        first, second = (errands.carry.using(**ours).enqueue(number) for number in (1, 2))
        job = job_of(first)
        assert first.id == second.id
        assert (job.payload["args"], job.max_attempts, job.key, job.queue_name) == ([2], 2, "x", "ann")
        assert job_of(errands.divide.enqueue(1)).max_attempts == 3  # of its backend
        assert job_of(errands.divide.enqueue(1)).payload["backend"] == "kept"

    def test_any_number_in_a_coroutine(self) -> None:
        result = async_to_sync(errands.carry.aenqueue)("a letter")
        assert job_of(result).payload["args"] == ["a letter"]

    def test_what_is_rolled_back_was_never_enqueued(self) -> None:
        @transaction.atomic
        def fail() -> None:
            errands.divide.enqueue(1)
            Letter.objects.create(to="ann")
            Letter.objects.create(to="ann")

        with pytest.raises(IntegrityError):
            fail()
        assert len(queue.jobs()) == 0
        with transaction.atomic():
            result = errands.divide.enqueue(1)
            transaction.set_rollback(True)
        with pytest.raises(Exception, match=result.id) as caught:
            result.refresh()
        assert type(caught.value).__name__ == "TaskResultDoesNotExist"

    def test_a_receiver_hears_of_it_and_harms_nothing(self) -> None:
        heard = []

        def receive(sender, task_result, **_):
            heard.append((sender, task_result.id))
            raise RuntimeError("of a receiver")

        task_enqueued.connect(receive)
        self.addCleanup(task_enqueued.disconnect, receive)
        with self.assertLogs("django.dispatch", "ERROR"):
            result = errands.carry.enqueue("a letter")
        assert heard == [(GraphileWorkerBackend, result.id)]

    def test_arguments_that_json_cannot_carry(self) -> None:
        for argument in (object(), {1, 2}, datetime.now(timezone.utc), errands):
            with pytest.raises(TypeError, match="Unsupported type"):
                errands.carry.enqueue(argument)
        for argument in (b"\xff", float("nan"), "\x00", {1: 2}):
            with pytest.raises(ValueError, match=r"Unsupported value|payload\.args"):
                errands.carry.enqueue(argument)
        assert len(queue.jobs()) == 0

    @override_settings(USE_TZ=False, TIME_ZONE="America/New_York")
    def test_a_project_without_time_zones(self) -> None:
        at = datetime(2040, 7, 1, 12)
        result = errands.carry.using(run_after=at).enqueue("x")
        job = job_of(result)
        assert job.run_at == datetime(2040, 7, 1, 16, tzinfo=timezone.utc)
        assert result.enqueued_at == django_timezone.make_naive(job.created_at)
        kept = errands.divide.enqueue(1)
        kept.refresh()
        assert kept.enqueued_at == django_timezone.make_naive(job_of(kept).created_at)

    def test_plain_sql_and_node_name_it_too(self) -> None:
        errands.carry.enqueue("x")
        with connection.cursor() as cursor:
            cursor.execute("select (graphile_worker.add_job('pigeon.errands.divide', '{\"args\": [7]}')).id")
            ((id,),) = cursor.fetchall()
        result = errands.divide.get_result(str(id))
        assert (result.args, result.kwargs, result.status) == ([7], {}, TaskResultStatus.READY)


def nested():
    def inner() -> None: ...

    return inner


class Refused(SimpleTestCase):
    """What a mistake comes to, without a database."""

    def test_tasks_that_cannot_be(self) -> None:
        wrong = [
            (lambda: task(nested()), "module level"),
            (lambda: task(lambda: None), "module level"),
            (lambda: task(generator), "generator is a generator: calling it would run nothing"),
            (partial(errands.carry.using, queue_name="emails"), "Queue 'emails' is not valid"),
            (partial(errands.carry.using, priority=101), "priority must be a whole number between -100 and 100"),
            (partial(errands.carry.using, run_after=datetime(2040, 1, 1)), "aware"),
            (partial(errands.carry.using, max_attempts=-1), "pigeon.errands.carry: max_attempts: expected 1 to 32767"),
            (partial(errands.carry.using, job_key_mode="replace"), "job_key_mode: has no meaning without a job_key"),
            (partial(errands.carry.using, serial_queue="x" * 129), "queue_name: expected 0 to 128 characters"),
            (partial(errands.carry.using, max_attempts=0), "pigeon.errands.carry: max_attempts: expected 1 to 32767"),
            (partial(GraphileWorkerTask, **parts_of(never), timeout=-3), "never: timeout: expected more than 0"),
            (partial(GraphileWorkerTask, **parts_of(never), retry="often"), "never: retry: expected a Backoff"),
            (partial(GraphileWorkerTask, **parts_of(never), takes_context=True), "first argument of 'context'"),
        ]
        for make, message in wrong:
            with pytest.raises(InvalidTask, match=message):
                make()

    def test_options_that_are_wrong_are_told_by_a_check_and_stop_an_enqueue(self) -> None:
        wrong = {
            "MAX_ATEMPTS": (3, "has no option 'MAX_ATEMPTS'"),
            "MAX_ATTEMPTS": (0, "expected 1 to 32767, got 0"),
            "RESULTS": ("next week", "RESULTS: expected True, or a timedelta"),
            "RETRY": ("often", "retry: expected a Backoff"),
            "TIMEOUT": (-1, "timeout: expected more than 0"),
        }
        options = {name: value for name, (value, _) in wrong.items()}
        with self.settings(TASKS={"default": {"BACKEND": BACKEND, "OPTIONS": options}}):
            found = list(task_backends["default"].check())
            with pytest.raises(ImproperlyConfigured, match=r"'MAX_ATEMPTS'. Did you mean 'MAX_ATTEMPTS'\?"):
                errands.carry.enqueue("a letter")
        assert [error.id for error in found] == ["graphile_worker.E021"] * 5
        for error, (_, message) in zip(found, wrong.values(), strict=True):
            assert message in error.msg
            assert "TASKS['default']['OPTIONS']" in error.msg
        beside = {"RESULTS": "7 days", "OPTION": {"TIMEOUT": 3}, "OF_A_LATER_DJANGO": 1}
        with self.settings(TASKS={"default": {"BACKEND": BACKEND, **beside}}):
            assert [f"{error.msg} {error.hint}" for error in task_backends["default"].check()] == [
                "TASKS['default'] has no option 'RESULTS'. Put it in OPTIONS.",
                "TASKS['default'] has no option 'OPTION'. Did you mean 'OPTIONS'?",
            ]
        with self.settings(TASKS={"default": {"BACKEND": BACKEND, "OPTIONS": ["RESULTS"]}}):
            (error,) = task_backends["default"].check()
            assert error.msg == "TASKS['default']['OPTIONS'] is of type list."

    def test_an_app_that_is_not_installed(self) -> None:
        with self.settings(INSTALLED_APPS=["django.contrib.contenttypes", "pigeon"]):
            (error,) = task_backends["default"].check()
        assert error.id == "graphile_worker.E020"
        assert list(task_backends["default"].check()) == []


BACKEND = "graphile_worker_py.contrib.django.GraphileWorkerBackend"


def generator():
    """Do nothing when called."""
    yield


def never(first) -> None:
    """Be no task, for what was said of it is wrong."""


def patient() -> None:
    """Be the function of a task."""


def parts_of(function) -> dict[str, object]:
    return {"func": function, "priority": 0, "backend": "default", "queue_name": "default", "run_after": None}


class Made(SimpleTestCase):
    """What the backend and its tasks are."""

    def test_the_backend_says_what_it_can(self) -> None:
        assert isinstance(task_backends["default"], GraphileWorkerBackend)
        assert (default_task_backend.alias, default_task_backend.supports_defer) == ("default", True)
        for alias, keeps in (("default", False), ("kept", True), ("once", True)):
            backend = task_backends[alias]
            assert (backend.supports_defer, backend.supports_priority, backend.supports_async_task) == (True,) * 3
            assert backend.supports_get_result is keeps
        with pytest.raises(NotImplementedError, match="does not support retrieving or refreshing results"):
            errands.carry.get_backend().get_result("1")
        with pytest.raises(NotImplementedError):
            async_to_sync(errands.carry.get_backend().aget_result)("1")

    def test_a_results_time_in_every_form(self) -> None:
        forms = {"7 days": 7 * 86400, 3600: 3600, True: 86400, timedelta(hours=1): 3600, "01:30:00": 5400, "P1D": 86400}
        for given, seconds in forms.items():
            backend = GraphileWorkerBackend("default", {"OPTIONS": {"RESULTS": given}})
            assert (list(backend.check()), backend._read.results) == ([], timedelta(seconds=seconds))
        for given in (None, False):
            assert not GraphileWorkerBackend("default", {"OPTIONS": {"RESULTS": given}}).supports_get_result

    def test_how_to_run_a_task_is_known_to_the_queue(self) -> None:
        made = GraphileWorkerTask(**parts_of(patient), **errands.PATIENT)
        known = queue.tasks[made.module_path]
        assert (known.timeout, known.concurrency, known.defaults) == (7.0, 1, {"max_attempts": 5})
        assert known.retry.verdict(ValueError(), 1).delay == pytest.approx(300, rel=0.11)
        assert queue.tasks["pigeon.errands.fail"].retry.verdict(ValueError(), 1).final
        assert queue.tasks["pigeon.errands.divide"].keep_result == timedelta(days=7)
        assert made.using(priority=3, job_key="x").timeout == 7

    def test_a_task_can_be_pickled(self) -> None:
        made = errands.carry.using(job_key="x", priority=3)
        if hasattr(type(made), "_reconstruct"):  # from Django 6.1 on
            assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301 - our own
