"""For py_000004_results.sql: see bring_up_to_date()."""

from __future__ import annotations

from django.db import migrations

from graphile_worker_py.contrib.django.installing import bring_up_to_date


class Migration(migrations.Migration):
    """Bring the schema up to date."""

    dependencies = [("graphile_worker", "0006_py_000003_running")]
    operations = [bring_up_to_date()]
