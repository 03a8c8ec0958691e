"""Django's tasks in worker pools: seen while they run, ended when their time is over, found by their paths."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from command_line import environment
from django.db import connection, transaction
from django.test import TransactionTestCase
from pigeon import errands
from pigeon.models import Letter

from contrib.django.conftest import PROJECT
from graphile_worker_py import JobFailedForGood, WorkerPool
from graphile_worker_py.contrib.django import forget_jobs, queue, worker_queue
from graphile_worker_py.contrib.django.conf import conninfo
from graphile_worker_py.contrib.django.task_paths import find_task
from graphile_worker_py.contrib.django.tasks_framework import TaskResultStatus


@contextmanager
def worker(concurrency: int = 2, **options: object) -> Iterator[WorkerPool]:
    working = worker_queue()
    try:
        with WorkerPool(working, concurrency, **options) as pool:
            yield pool
    finally:
        working.close()


class Workers(TransactionTestCase):
    """What is added is committed, and so is what tasks do."""

    def setUp(self) -> None:
        self.addCleanup(forget_jobs)

    def wait_for(self, result, seconds: float = 20) -> None:
        """Wait until a task is over, as somebody might who has no worker at hand; what it kept is for get_result."""
        with suppress(JobFailedForGood):
            working = worker_queue()
            try:
                working.wait_for(int(result.id), timeout=seconds)
            finally:
                working.close()
        result.refresh()

    def other_sessions(self) -> list[tuple[str]]:
        with connection.cursor() as cursor:
            cursor.execute(
                "select query from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            )
            return cursor.fetchall()

    def test_one_that_runs(self) -> None:
        errands.entered.clear()
        errands.leave.clear()
        result = errands.wait_inside.enqueue()
        with worker() as pool:
            assert errands.entered.wait(20)
            result.refresh()
            assert (result.status, result.worker_ids, result.attempts) == (TaskResultStatus.RUNNING, [pool.id], 1)
            assert result.started_at == result.last_attempted_at
            with pytest.raises(ValueError, match="has not finished yet"):
                _ = result.return_value
            errands.leave.set()
            self.wait_for(result)
        assert (result.status, result.return_value, result.worker_ids) == (
            TaskResultStatus.SUCCESSFUL,
            None,
            [pool.id],
        )

    def test_a_coroutine_whose_time_is_over(self) -> None:
        result = errands.count_letters.using(max_attempts=1).enqueue(3600)
        queue.set_timeout(int(result.id), 0.5)
        with worker():
            self.wait_for(result)
        assert result.status == TaskResultStatus.FAILED
        assert [error.exception_class.__name__ for error in result.errors] == ["JobTimeout"]

    def test_coroutines_side_by_side_leave_no_connection(self) -> None:
        Letter.objects.create(to="ann")
        results = [errands.count_letters.enqueue(0.05) for _ in range(20)]
        with worker(4):
            for result in results:
                self.wait_for(result)
        assert [result.return_value for result in results] == [1] * 20
        deadline = time.monotonic() + 20
        while others := self.other_sessions():  # a session is counted until its process has ended
            assert time.monotonic() < deadline, others

    def test_one_that_completes_its_job_in_the_transaction_of_the_orm(self) -> None:
        done = errands.complete_together.enqueue("ann")
        undone = errands.complete_together.using(max_attempts=1).enqueue("bo", fails=True)
        with worker(), self.assertNoLogs("graphile_worker_py.task"):
            self.wait_for(done)
            self.wait_for(undone)
        assert (done.status, done.return_value, done.attempts) == (TaskResultStatus.SUCCESSFUL, None, 1)
        assert (undone.status, undone.errors[0].exception_class) == (TaskResultStatus.FAILED, ValueError)
        assert [letter.to for letter in Letter.objects.all()] == ["ann"]

    def test_a_job_key_across_transactions(self) -> None:
        with transaction.atomic():
            first = errands.divide.using(job_key="sum").enqueue(1)
        second = errands.divide.using(job_key="sum").enqueue(2)
        assert first.id == second.id
        with worker():
            self.wait_for(second)
        assert second.return_value == {"quotient": 1.0}

    def test_a_module_that_ends_the_process_does_not_end_a_worker(self) -> None:
        with self.assertLogs("graphile_worker_py.contrib.django.task_paths", "WARNING") as logs:
            assert find_task("pigeon.script.task") is None
        assert "cannot be imported: done" in logs.output[0]

    def test_a_worker_that_has_never_heard_of_a_task_finds_it_by_its_path(self) -> None:
        Letter.objects.create(to="ann")
        result = errands.count_letters.enqueue()
        foreign = [
            queue.add_job(name, {"args": []}) for name in ("this.s", "pigeon.nowhere.task", "pigeon.models.Letter")
        ]
        program = (
            "import sys, django; django.setup()\n"
            "from graphile_worker_py.contrib.django import worker_queue\n"
            "assert 'pigeon.errands' not in sys.modules\n"
            "with worker_queue() as queue: print(queue.run_once(2))\n"
            "assert 'this' not in sys.modules\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=PROJECT,
            env=environment(DJANGO_SETTINGS_MODULE="post.settings", POST_DATABASE=conninfo("default")),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "RunSummary(completed=1, retrying=0, failed=0)\n"), done.stderr
        result.refresh()
        assert result.return_value == 1
        assert len(queue.jobs(state="ready")) == len(foreign)
