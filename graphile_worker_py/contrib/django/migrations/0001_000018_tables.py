"""For 000018_tables.sql: see bring_up_to_date(); and Django is told of the models, which need no tables of its own."""

from __future__ import annotations

from django.db import migrations

from graphile_worker_py.contrib.django.installing import bring_up_to_date, unmanaged_models


class Migration(migrations.Migration):
    """Bring the schema up to date."""

    operations = [bring_up_to_date(), *unmanaged_models()]
