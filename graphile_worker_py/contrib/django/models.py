"""The tables of the queue as unmanaged models, for the admin to read; changes go through the queue.

They stand in a schema of their own, which Django has no word for: a name that is quoted already is left as it is.
"""

from __future__ import annotations

from django.db import models

from graphile_worker_py.contrib.django import conf


class Task(models.Model):
    """A name that jobs are for."""

    identifier = models.TextField()

    class Meta:
        """Node's table."""

        managed = False
        db_table = conf.table("_private_tasks")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.identifier)


class NamedQueue(models.Model):
    """A label on jobs, of which one at a time runs."""

    queue_name = models.TextField()
    locked_at = models.DateTimeField(null=True)
    locked_by = models.TextField(null=True)

    class Meta:
        """Node's table."""

        managed = False
        db_table = conf.table("_private_job_queues")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return str(self.queue_name)


class Job(models.Model):
    """A job, from its adding until it is done. Its payload is data already: the drivers read the type json."""

    task = models.ForeignKey(Task, models.DO_NOTHING, db_constraint=False)
    queue = models.ForeignKey(NamedQueue, models.DO_NOTHING, db_column="job_queue_id", db_constraint=False, null=True)
    payload = models.TextField()
    priority = models.SmallIntegerField()
    run_at = models.DateTimeField()
    attempts = models.SmallIntegerField()
    max_attempts = models.SmallIntegerField()
    last_error = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    key = models.TextField(null=True)
    locked_at = models.DateTimeField(null=True)
    locked_by = models.TextField(null=True)
    revision = models.IntegerField()
    flags = models.JSONField(null=True)

    class Meta:
        """Node's table."""

        managed = False
        db_table = conf.table("_private_jobs")
        default_permissions = ("view", "change")

    def __str__(self) -> str:
        return f"job {self.pk}"


class CronItem(models.Model):
    """What is done by the clock, as workers have made it known."""

    identifier = models.TextField(primary_key=True)
    known_since = models.DateTimeField()
    last_execution = models.DateTimeField(null=True)

    class Meta:
        """Node's table."""

        managed = False
        db_table = conf.table("_private_known_crontabs")
        default_permissions = ("view", "change")

    def __str__(self) -> str:
        return str(self.identifier)


class Worker(models.Model):
    """A pool of ours that lives, or did until lately."""

    id = models.TextField(primary_key=True)
    beat_at = models.DateTimeField()
    dead_after = models.DurationField()
    started_at = models.DateTimeField()
    host = models.TextField()
    pid = models.IntegerField()
    concurrency = models.IntegerField()
    version = models.TextField()

    class Meta:
        """Ours."""

        managed = False
        db_table = conf.table("_private_py_pools")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return str(self.id)
