"""For py_000001_queued_jobs.sql: see bring_up_to_date()."""

from __future__ import annotations

from django.db import migrations

from graphile_worker_py.contrib.django.installing import bring_up_to_date


class Migration(migrations.Migration):
    """Bring the schema up to date."""

    dependencies = [("graphile_worker", "0003_000020_add_job")]
    operations = [bring_up_to_date()]
