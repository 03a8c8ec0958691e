"""For 000019_pool_ids.sql: see bring_up_to_date()."""

from __future__ import annotations

from django.db import migrations

from graphile_worker_py.contrib.django.installing import bring_up_to_date


class Migration(migrations.Migration):
    """Bring the schema up to date."""

    dependencies = [("graphile_worker", "0001_000018_tables")]
    operations = [bring_up_to_date()]
