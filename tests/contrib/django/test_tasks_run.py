"""Django's tasks are run: their results, errors, attempts and signals, as Django's own backends have them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.test import TestCase
from pigeon import errands
from pigeon.models import Letter

from graphile_worker_py.contrib.django import GraphileWorkerBackend, queue, run_jobs
from graphile_worker_py.contrib.django.task_records import keep_attempt
from graphile_worker_py.contrib.django.tasks_framework import (
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_finished,
    task_started,
)
from graphile_worker_py.testing import Drained

READY, RUNNING, FAILED, SUCCESSFUL = (
    TaskResultStatus.READY,
    TaskResultStatus.RUNNING,
    TaskResultStatus.FAILED,
    TaskResultStatus.SUCCESSFUL,
)


def run(*, within: timedelta = timedelta(0)) -> Drained:
    """Run what is due, whatever comes of it."""
    return run_jobs(within=within, raise_errors=False)


class Run(TestCase):
    """Each test is in a transaction, whose jobs it alone sees."""

    def setUp(self) -> None:
        self.heard: list[tuple[str, str]] = []
        for signal, name in ((task_started, "started"), (task_finished, "finished")):
            self.listen(signal, name)

    def listen(self, signal, name) -> None:
        def receive(sender, task_result, **_) -> None:
            assert sender is GraphileWorkerBackend
            self.heard.append((name, task_result.status.value))
            raise RuntimeError("of a receiver, which harms nothing")

        signal.connect(receive)
        self.addCleanup(signal.disconnect, receive)

    def test_one_that_succeeds(self) -> None:
        result = errands.divide.enqueue(7)
        (job,) = run().completed
        assert (result.status, result.worker_ids) == (READY, [])
        result.refresh()
        assert (result.status, result.is_finished, result.return_value) == (SUCCESSFUL, True, {"quotient": 3.5})
        assert (result.worker_ids, result.errors, result.attempts) == ([job.locked_by], [], 1)
        assert result.started_at == result.last_attempted_at == job.locked_at
        assert result.enqueued_at == job.created_at
        assert result.finished_at >= result.started_at
        assert self.heard == [("started", "RUNNING"), ("finished", "SUCCESSFUL")]
        again = async_to_sync(errands.divide.aget_result)(result.id)
        assert (again.task, again.args, again.kwargs, again.backend) == (errands.divide, [7], {}, "kept")
        assert again == result

    def test_one_whose_backend_keeps_no_results(self) -> None:
        result = errands.carry.enqueue("a letter", to="ann")  # it returns an object, which is nobody's business
        assert run().tasks == ["pigeon.errands.carry"]
        assert Letter.objects.filter(to="ann").exists()
        assert self.heard == [("started", "RUNNING"), ("finished", "SUCCESSFUL")]
        with pytest.raises(NotImplementedError):
            result.refresh()

    def test_one_that_fails_is_ready_again_until_it_has_failed_for_good(self) -> None:
        result = errands.divide.using(max_attempts=2).enqueue(1, b=0)
        (failure,) = run().failed
        result.refresh()
        assert (result.status, result.attempts, result.finished_at) == (READY, 1, None)
        assert result.last_attempted_at == result.started_at == failure.job.locked_at
        assert result.worker_ids == [failure.job.locked_by]
        assert self.heard == [("started", "RUNNING")]
        run(within=timedelta(days=1))
        result.refresh()
        assert (result.status, result.is_finished, result.attempts, len(result.errors)) == (FAILED, True, 2, 2)
        assert result.finished_at > result.started_at
        for error in result.errors:
            assert error.exception_class is ZeroDivisionError
            assert error.traceback.startswith("Traceback (most recent call last):\n")
            assert error.traceback.endswith("ZeroDivisionError: division by zero\n")
            assert "errands.py" in error.traceback
            assert "graphile_worker_py/" not in error.traceback
        with pytest.raises(ValueError, match="Task failed"):
            _ = result.return_value
        assert self.heard[1:] == [("started", "RUNNING"), ("finished", "FAILED")]

    def test_attempts_are_counted_for_the_task_too(self) -> None:
        result = errands.tell_attempt.enqueue(fails=2)
        run(within=timedelta(days=1))
        result.refresh()
        assert result.return_value == [3, result.id, 2]
        assert [error.exception_class for error in result.errors] == [ValueError, ValueError]
        assert len(result.worker_ids) == result.attempts == 3

    def test_attempts_that_have_left_nothing_are_counted_as_well(self) -> None:
        result = errands.tell_attempt.enqueue()
        queue.reschedule_jobs([int(result.id)], attempts=2)  # as if two workers had been killed
        (job,) = run().completed
        result.refresh()
        assert (result.return_value, result.worker_ids) == ([3, result.id, 0], ["unknown", "unknown", job.locked_by])

    def test_a_backend_that_does_not_retry(self) -> None:
        result = errands.fail.enqueue()
        run(within=timedelta(days=100))
        result.refresh()
        assert (result.status, [error.exception_class for error in result.errors]) == (FAILED, [LookupError])
        assert result.attempts == 1

    def test_what_json_cannot_carry_fails_once(self) -> None:
        result = errands.return_an_object.enqueue()
        run(within=timedelta(days=100))
        result.refresh()
        assert (result.status, len(result.errors)) == (FAILED, 1)
        assert "cannot be kept as JSON: Unsupported type: <class 'object'>" in result.errors[0].traceback

    def test_tasks_may_steer(self) -> None:
        give_up, later, snooze = (errands.steer.enqueue(how) for how in ("give up", "later", "snooze"))
        run(within=timedelta(minutes=1))
        for result in (give_up, later, snooze):
            result.refresh()
        assert (give_up.status, give_up.attempts) == (FAILED, 1)
        assert (later.return_value, len(later.errors)) == (2, 1)
        assert (snooze.return_value, snooze.errors) == (1, [])

    def test_a_coroutine(self) -> None:
        Letter.objects.create(to="ann")
        result, wrapped = errands.count_letters.enqueue(), errands.count_from_outside.enqueue()
        run()
        result.refresh()
        wrapped.refresh()
        assert (result.return_value, result.task.priority, wrapped.return_value) == (1, 10, 1)

    def test_arguments_that_do_not_fit_the_function(self) -> None:
        result = errands.divide.using(max_attempts=1).enqueue(1, 2, 3)
        run()
        result.refresh()
        assert [error.exception_class for error in result.errors] == [TypeError]
        job = queue.add_job("pigeon.errands.divide", {"numbers": [1, 2]})
        (failed,) = run().failed
        assert "InvalidPayload" in failed.error
        assert failed.final
        with pytest.raises(TaskResultDoesNotExist):
            errands.divide.get_result(str(job.id))

    def test_a_job_that_somebody_else_has_ended(self) -> None:
        result, removed = errands.divide.enqueue(1), errands.divide.enqueue(2)
        queue.cancel(int(result.id), "not needed")
        queue.complete_jobs([int(removed.id)])
        result.refresh()
        assert (result.status, result.attempts) == (FAILED, 0)
        (error,) = result.errors
        assert (error.exception_class.__name__, error.traceback) == ("JobFailedForGood", "cancelled: not needed")
        with pytest.raises(TaskResultDoesNotExist):
            removed.refresh()

    def test_an_attempt_that_has_lost_its_job_writes_nothing_over(self) -> None:
        result = errands.divide.enqueue(1)
        job = queue.job(int(result.id))
        (done,) = run().completed
        for late in (job, done):  # neither of them holds a job any more
            keep_attempt(queue.database, result, late, keep_for=timedelta(days=1))
        result.refresh()
        assert (result.status, result.return_value) == (SUCCESSFUL, {"quotient": 0.5})

    def test_ids_that_are_not_those_of_a_task(self) -> None:
        foreign = queue.add_job("send_letter", {"to": "ann"})
        for id in ("0", "-1", "none", "", "9" * 30, "9" * 5000, "²", str(foreign.id)):
            with pytest.raises(TaskResultDoesNotExist):
                errands.divide.get_result(id)
        result = errands.divide.enqueue(1)
        with pytest.raises(Exception, match=r"received 'pigeon\.errands\.divide'") as caught:
            errands.fail.get_result(result.id)
        assert type(caught.value).__name__ == "TaskResultMismatch"

    def test_what_a_job_key_begins_anew_has_no_past(self) -> None:
        keyed = errands.divide.using(job_key="sum")
        result = keyed.enqueue(1, 0)
        run()
        result.refresh()
        assert result.attempts == 1
        assert keyed.enqueue(1, 1).id == result.id
        result.refresh()
        assert (result.status, result.attempts, result.errors) == (READY, 0, [])
        run()
        result.refresh()
        assert (result.return_value, result.attempts) == ({"quotient": 1.0}, 1)
