"""System checks: the settings, what the worker needs of Django's pool, and (with a database) the schema.

    graphile_worker.E001 to E006   GRAPHILE_WORKER, and the one of DATABASES that it names, cannot be used
    graphile_worker.E007           the schema is missing, too old, or newer than this version knows
    graphile_worker.W001           handlers would wait for Django's connection pool

That of the schema is made by `manage.py check --deploy --database default`, or what the database of the jobs is called:
`migrate` makes all others that connect before it begins, and would never get to mend this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from django.core import checks
from django.db import DatabaseError, connections

from graphile_worker_py import migrate
from graphile_worker_py.contrib.django import conf
from graphile_worker_py.contrib.django.app_queue import AppDatabase
from graphile_worker_py.errors import GraphileWorkerError, MigrationError
from graphile_worker_py.queue import Queue

DEFAULT_CONCURRENCY = 8
# What WorkerPool takes in other forms too, which an option of `run` has not; () is what is not set.
FROM_THE_COMMAND_LINE = {"forbidden_flags": (list, tuple), "crontab": (str, tuple)}


def register() -> None:
    """Have Django make these checks."""
    checks.register(check_settings, conf.TAG)
    checks.register(check_schema, conf.TAG, checks.Tags.database, deploy=True)


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """Return what is wrong with GRAPHILE_WORKER, without connecting."""
    found = [_error(problem) for problem in conf.problems()]
    return found or [*_worker_problems(conf.options())]


def check_schema(*, databases: Sequence[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Return whether the schema fits, if the database of the jobs is among those that are checked."""
    if any(conf.problems()) or (options := conf.options()).alias not in (databases or ()):
        return []
    try:
        migrate.check(AppDatabase(options.alias, schema=options.schema))
    except MigrationError as error:
        hint = f"Run {conf.how_to_migrate(options.alias)}."
        return [checks.Error(f"{error}.", hint=hint, id=f"{conf.TAG}.E007")]
    except (DatabaseError, psycopg.Error):
        return []  # whatever needs the database says so itself
    return []


def _worker_problems(options: conf.Options) -> Iterator[checks.CheckMessage]:
    from graphile_worker_py.worker.pool import WorkerPool

    try:
        WorkerPool(Queue(conf.conninfo(options.alias), schema=options.schema), **options.pool)
    except (GraphileWorkerError, TypeError, ValueError) as error:
        yield _error(conf.unusable(error, "E006"))
        return
    for name, kinds in FROM_THE_COMMAND_LINE.items():
        if not isinstance(options.pool.get(name, ()), kinds):
            what = f"{name}: expected a {' or '.join(kind.__name__ for kind in kinds)}"
            yield _error(conf.unusable(TypeError(what), "E006"))
    concurrency = options.pool.get("concurrency", DEFAULT_CONCURRENCY)
    largest = _largest_pool(options.alias)
    if largest is not None and largest < concurrency:
        yield checks.Warning(
            f"DATABASES[{options.alias!r}] has a pool of at most {largest} connections, "
            f"and the worker runs {concurrency} jobs at a time, each of which may need one.",
            hint=f"Raise max_size of the pool, or lower {conf.SETTING}['CONCURRENCY'].",
            id=f"{conf.TAG}.W001",
        )


def _largest_pool(alias: str) -> int | None:
    pool = connections[alias].settings_dict["OPTIONS"].get("pool")
    if not pool:
        return None
    sizes: dict[str, int | None] = pool if isinstance(pool, dict) else {}
    return sizes.get("max_size") or sizes.get("min_size", 4)  # as psycopg_pool has it


def _error(problem: conf.Problem) -> checks.CheckMessage:
    return checks.Error(problem.text, hint=problem.hint, id=f"{conf.TAG}.{problem.number}")
