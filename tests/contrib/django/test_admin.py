"""The admin, as a browser sees it: what is shown to whom, and what its actions do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import TestCase, override_settings
from pigeon.tasks import send_letter

from graphile_worker_py import Job
from graphile_worker_py.contrib.django import queue

JOBS = "/admin/graphile_worker/job/"


class InATest(TestCase):
    """Ann may do everything, Ben may look."""

    def setUp(self) -> None:
        self.client.force_login(User.objects.create_superuser("ann"))

    def log_in_ben(self, *permissions: str) -> None:
        ben = User.objects.create_user("ben", is_staff=True)
        ben.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        self.client.force_login(ben)

    def page(self, path: str = JOBS, **query: str) -> str:
        response = self.client.get(path, query)
        assert response.status_code == 200, response.status_code
        return response.content.decode()

    def shown(self, **query: str) -> set[int]:
        found = self.client.get(JOBS, query).context["cl"].result_list
        return {job.pk for job in found}

    def act(self, action: str, *jobs: Job, **more: Any) -> str:
        data = {"action": action, "_selected_action": [job.id for job in jobs], **more}
        response = self.client.post(JOBS, data, follow=True)
        assert response.status_code == 200, response.status_code
        return " ".join(str(message) for message in response.context["messages"])

    def one_of_each_state(self) -> dict[str, Job]:
        queue.add_job("fails", {}, max_attempts=1)
        jobs = {
            "ready": send_letter.add_job({"to": "<b>ann</b>"}, job_key="ann", queue_name="post"),
            "scheduled": queue.add_job("later", run_at=timedelta(days=1)),
            "running": queue.add_job("runs"),
            "retrying": queue.add_job("again", run_at=timedelta(days=1)),
            "failed": queue.add_job("fails", {"secret": 7}),
        }
        queue.reschedule_jobs([jobs["retrying"].id], attempts=1)
        queue.permanently_fail_jobs([jobs["failed"].id], "it is <i>too late</i>")
        with connection.cursor() as cursor:
            cursor.execute("delete from graphile_worker._private_jobs where max_attempts = 1")
            cursor.execute(
                "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'somebody' where id = %s",
                [jobs["running"].id],
            )
        return jobs

    def test_jobs_are_found_by_state_task_key_and_id(self) -> None:
        jobs = self.one_of_each_state()
        with self.assertNumQueries(7):  # however many jobs there are
            text = self.page()
        assert "secret" not in text
        assert "too late" not in text
        for state, job in jobs.items():
            assert self.shown(state=state) == {job.id}
        assert self.shown(task="later") == self.shown(q=str(jobs["scheduled"].id)) == {jobs["scheduled"].id}
        assert self.shown(q="ann") == self.shown(task="send_letter") == {jobs["ready"].id}
        assert self.shown(q="an") == self.shown(task="nothing") == set()
        assert self.shown(state="nothing", o="1") == {job.id for job in jobs.values()}

    def test_the_page_of_a_job_shows_its_payload_and_its_error(self) -> None:
        jobs = self.one_of_each_state()
        text = self.page(f"{JOBS}{jobs['failed'].id}/change/")
        assert "&quot;secret&quot;: 7" in text
        assert "it is &lt;i&gt;too late" in text
        assert "&lt;b&gt;ann" in self.page(f"{JOBS}{jobs['ready'].id}/change/")
        assert 'name="_save"' not in text

    def test_times_that_python_cannot_read_are_shown_as_the_last_and_the_first(self) -> None:
        (job, other) = (queue.add_job("later"), queue.add_job("sooner"))
        with connection.cursor() as cursor:
            statement = "update graphile_worker._private_jobs set run_at = %s where id = %s"
            cursor.executemany(statement, [("infinity", job.id), ("-infinity", other.id)])
        text = self.page()
        assert "9999" in text
        assert self.shown(state="scheduled") == {job.id}
        assert "9999" in self.page(f"{JOBS}{job.id}/change/")

    def test_ids_and_payloads_of_every_kind(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("alter table graphile_worker._private_jobs alter column id restart with 3000000000")
            cursor.execute("select graphile_worker.add_job('send_letter', '{\"to\": \"\\ud800\"}'::json)")
        assert self.shown(q="3000000000") == {3_000_000_000}
        assert "&quot;to&quot;: &quot;\\ud800&quot;" in self.page(f"{JOBS}3000000000/change/")
        assert self.act("fail_for_good", queue.job(3_000_000_000)) == "Failed for good: 1."
        for number in ("9" * 19, "9" * 5000):
            assert self.shown(q=number) == set()

    @override_settings(USE_TZ=False, TIME_ZONE="America/New_York")
    def test_a_project_without_time_zones(self) -> None:
        job = queue.add_job("later")
        assert self.act("reschedule", job, run_at="2099-01-31T09:30") == "Rescheduled: 1."
        assert str(queue.job(job.id).run_at) == "2099-01-31 14:30:00+00:00"

    def test_actions_do_what_they_say_and_leave_running_jobs(self) -> None:
        jobs = self.one_of_each_state()
        everything = list(jobs.values())
        assert self.act("run_now", *everything) == "Made due: 4. Left as they are, for they run or are gone: 1."
        assert self.shown(state="ready") >= {job.id for job in everything} - {jobs["running"].id}
        assert self.act("reschedule", jobs["ready"]) == "Nothing was done: Fill in the time beside the action."
        assert "valid date" in self.act("reschedule", jobs["ready"], run_at="soon")
        assert self.act("reschedule", jobs["ready"], run_at="2099-01-31T09:30") == "Rescheduled: 1."
        assert str(queue.job(jobs["ready"].id).run_at) == "2099-01-31 09:30:00+00:00"
        assert self.act("fail_for_good", jobs["ready"]) == "Failed for good: 1."
        assert queue.job(jobs["ready"].id).last_error == "failed in the admin by ann"
        assert self.act("complete", jobs["ready"], jobs["retrying"]) == "Completed: 2."
        assert self.act("cancel", jobs["running"], jobs["failed"]) == "Cancelled: 2."
        running = queue.job(jobs["running"].id)
        assert running.attempts >= running.max_attempts
        entries = LogEntry.objects.filter(object_id=str(jobs["ready"].id)).order_by("id")
        assert [entry.change_message for entry in entries] == [
            "Made due",
            "Rescheduled",
            "Failed for good",
            "Completed",
        ]

    def test_an_action_on_very_many_is_refused(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("select graphile_worker.add_job('send_letter') from generate_series(1, 1001)")
        text = self.act("complete", queue.add_job("one"), select_across="1")
        assert text == "More than 1,000 are chosen, and nothing was done: choose fewer, by a filter perhaps."

    def test_who_may_look_may_not_act_and_who_may_do_neither_sees_nothing(self) -> None:
        job = send_letter.add_job({"to": "ann"})
        self.log_in_ben("view_job")
        assert self.shown() == {job.id}
        assert 'name="action"' not in self.page()
        self.act("complete", job)
        assert queue.job(job.id) == job
        for path in (f"{JOBS}add/", f"{JOBS}{job.id}/delete/", "/admin/graphile_worker/worker/"):
            assert self.client.get(path).status_code == 403
        self.client.force_login(User.objects.create_user("cleo", is_staff=True))
        assert self.client.get(JOBS).status_code == 403

    def test_queues_workers_and_cron_items_are_listed(self) -> None:
        queue.add_job("send_letter", queue_name="post")
        with connection.cursor() as cursor:
            cursor.execute(
                "insert into graphile_worker._private_known_crontabs (identifier, known_since)"
                " values ('nightly', now())"
            )
            cursor.execute(
                "insert into graphile_worker._private_py_pools (id, dead_after, host, pid, concurrency, version)"
                " values ('pool-1', '1 minute', 'host-1', 17, 8, '1.0')"
            )
        assert "post" in self.page("/admin/graphile_worker/namedqueue/")
        assert "host-1" in self.page("/admin/graphile_worker/worker/")
        items = "/admin/graphile_worker/cronitem/"
        assert "False" in self.page(items)
        for action, alt in (("pause", "True"), ("resume", "False")):
            text = self.client.post(items, {"action": action, "_selected_action": ["nightly"]}, follow=True)
            assert f"{action.capitalize()}d: 1." in text.content.decode()
            assert f'alt="{alt}"' in text.content.decode()
        assert "nightly" in self.page(f"{items}nightly/change/")
