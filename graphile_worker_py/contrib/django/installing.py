"""What our Django migrations consist of: our own migrator brings the schema up to date."""

from __future__ import annotations

from typing import Any

from django.db.migrations import CreateModel, RunPython
from django.db.migrations.state import ModelState

from graphile_worker_py.contrib.django import conf
from graphile_worker_py.contrib.django.app_queue import AppDatabase
from graphile_worker_py.contrib.django.models import CronItem, Job, NamedQueue, Task, Worker
from graphile_worker_py.migrate import migrate


def bring_up_to_date() -> RunPython:
    """Return the operation; undoing it leaves the schema as it is, for there may be jobs in it, Node's too."""
    return RunPython(_install, RunPython.noop)


def unmanaged_models() -> list[CreateModel]:
    """Return operations that do nothing but tell Django of our models, as they are now, in the schema of the settings.

    Or it would miss a migration for them, whenever it is asked, and another one for each schema's name.
    """
    states = map(ModelState.from_model, (Task, NamedQueue, Job, CronItem, Worker))
    return [CreateModel(state.name, list(state.fields.items()), state.options) for state in states]


def _install(_: Any, schema_editor: Any) -> None:
    """Install or upgrade, on a connection of its own: the migrator's rules are those of one transaction for all.

    It always goes all the way, so the later of our Django migrations find nothing to do; and nothing is done where
    Node's worker has installed everything, or on another of DATABASES than that of the jobs.
    """
    options = conf.options()
    if schema_editor.connection.alias == options.alias:
        migrate(AppDatabase(options.alias, schema=options.schema))
