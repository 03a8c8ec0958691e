"""For py_000005_limits.sql: see bring_up_to_date()."""

from __future__ import annotations

from django.db import migrations

from graphile_worker_py.contrib.django.installing import bring_up_to_date


class Migration(migrations.Migration):
    """Bring the schema up to date."""

    dependencies = [("graphile_worker", "0007_py_000004_results")]
    operations = [bring_up_to_date()]
