"""For py_000003_running.sql: see bring_up_to_date()."""

from __future__ import annotations

from django.db import migrations

from graphile_worker_py.contrib.django.installing import bring_up_to_date


class Migration(migrations.Migration):
    """Bring the schema up to date."""

    dependencies = [("graphile_worker", "0005_py_000002_pools")]
    operations = [bring_up_to_date()]
