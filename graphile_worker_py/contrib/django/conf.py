"""The setting GRAPHILE_WORKER: what it may hold, what is wrong with it, and how to connect as Django does.

    GRAPHILE_WORKER = {"DATABASE": "default", "SCHEMA": "graphile_worker", "CONCURRENCY": 8}

The remaining names are the arguments of Queue and WorkerPool in capitals; they are for the worker's process, since
everything else goes over Django's own connections.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.utils.module_loading import import_string
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.sql import Identifier

from graphile_worker_py._conninfo import check_schema
from graphile_worker_py._database import DEFAULT_SCHEMA
from graphile_worker_py.errors import GraphileWorkerError
from graphile_worker_py.queue import Queue

SETTING = "GRAPHILE_WORKER"
APP = "graphile_worker_py.contrib.django"
TAG = "graphile_worker"  # of our checks

FOR_QUEUE = (
    "MIN_SIZE",
    "MAX_SIZE",
    "MAX_LIFETIME",
    "CONNECT_TIMEOUT",
    "STATEMENT_TIMEOUT",
    "PREPARED_STATEMENTS",
    "LISTEN",
    "RETRY",
    "RETRY_ON",
    "GIVE_UP_ON",
    "AROUND",
)
FOR_POOL = ("CONCURRENCY", "POLL_INTERVAL", "GRACE", "STUCK_AFTER", "FORBIDDEN_FLAGS", "CRONTAB", "HISTORY")
KNOWN = ("DATABASE", "SCHEMA", *FOR_QUEUE, *FOR_POOL)


@attrs.frozen
class Problem:
    """A mistake in the settings: the number of the check that tells it, what it is, and what to do."""

    number: str
    text: str
    hint: str


@attrs.frozen(kw_only=True)
class Options:
    """The setting, read: which of DATABASES, which schema, and the arguments of Queue and of WorkerPool."""

    alias: str
    schema: str
    queue: Mapping[str, Any]
    pool: Mapping[str, Any]


def options() -> Options:
    """Return the setting as it is now; raise ImproperlyConfigured for the first mistake in it."""
    for problem in problems():
        raise ImproperlyConfigured(f"{problem.text} {problem.hint}")
    return _options()


def problems() -> Iterator[Problem]:
    """Yield what is wrong with the setting; nothing is connected to."""
    given = getattr(settings, SETTING, {})
    if not isinstance(given, dict):
        yield Problem("E001", f"{SETTING} is of type {type(given).__name__}.", "Make it a dict.")
        return
    for name in given:
        if name not in KNOWN:
            yield Problem("E002", f"{SETTING} has no option {name!r}.", meant(name, KNOWN))
    alias = given.get("DATABASE", DEFAULT_DB_ALIAS)
    if not isinstance(alias, str) or alias not in connections.settings:
        yield Problem(
            "E003", f"{SETTING}['DATABASE'] is {alias!r}, which DATABASES has not.", meant(alias, connections)
        )
        return
    if (problem := _unfit(alias)) is not None:
        yield problem
        return
    try:
        read = _options()
        Queue(conninfo(alias), schema=read.schema, **read.queue)
    except (GraphileWorkerError, ImportError, TypeError) as error:
        yield unusable(error, "E005")


def unusable(error: Exception, number: str) -> Problem:
    """Return the problem that an error tells of, whose words are those of the arguments of Queue and WorkerPool."""
    return Problem(number, f"{SETTING} has a value that cannot be used: {error}.", "Options are named in capitals.")


def _unfit(alias: str) -> Problem | None:
    try:
        engine = connections[alias].settings_dict["ENGINE"]
        if connections[alias].vendor != "postgresql":
            hint = f"Point {SETTING}['DATABASE'] to one whose engine is django.db.backends.postgresql."
            return Problem("E004", f"Jobs are kept in PostgreSQL, and DATABASES[{alias!r}] is {engine}.", hint)
        connections[alias].get_connection_params()
    except ImproperlyConfigured as error:
        return Problem("E004", f"DATABASES[{alias!r}] cannot be used: {error}", "Mend it there.")
    return None


def _options() -> Options:
    given = getattr(settings, SETTING, {})
    queue = {name.lower(): given[name] for name in FOR_QUEUE if name in given}
    if isinstance(queue.get("around"), str):
        queue["around"] = import_string(queue["around"])
    return Options(
        alias=given.get("DATABASE", DEFAULT_DB_ALIAS),
        schema=check_schema(given.get("SCHEMA", _usual_schema())),
        queue=queue,
        pool={name.lower(): given[name] for name in FOR_POOL if name in given},
    )


def _usual_schema() -> str:
    return os.environ.get("GRAPHILE_WORKER_SCHEMA") or DEFAULT_SCHEMA


def for_command_line(pool: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of WorkerPool as the options of `run` have them."""
    said = dict(pool)
    if "forbidden_flags" in said:
        said["forbidden_flag"] = said.pop("forbidden_flags")
    if said.get("history") is not None:
        said["history"] = f"{said['history'].total_seconds()}s"
    return said


def meant(name: object, known: Iterable[str]) -> str:
    """Return a sentence that names what somebody may have meant, else all there is."""
    names = list(known)
    near = difflib.get_close_matches(str(name).upper(), names, n=1) or difflib.get_close_matches(str(name), names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"There is {', '.join(names)}."


def how_to_migrate(alias: str | None) -> str:
    """Return what to run for a schema that is missing or too old.

    Django applies no migration twice, so it does nothing where SCHEMA was another one when it did, or DATABASE.
    """
    django, ours = f"manage.py migrate --database {alias}", "manage.py graphile_worker migrate"
    return f"`{django}`, or, if Django finds nothing to apply there, `{ours}`"


def table(name: str) -> str:
    """Return the name of a table in the schema, quoted; while that is told wrongly, in the usual one."""
    given = getattr(settings, SETTING, {})
    schema = given.get("SCHEMA", _usual_schema()) if isinstance(given, dict) else _usual_schema()
    return Identifier(str(schema), name).as_string()


def conninfo(alias: str) -> str:
    """Return how to reach one of DATABASES over a connection of our own; while tests run, their database.

    All that libpq takes of what Django would connect with; a role that Django assumes is set at the start.
    """
    connection = connections[alias]
    params = connection.get_connection_params()
    libpq = {entry.keyword.decode() for entry in pq.Conninfo.get_defaults()}
    named = {name: value for name, value in params.items() if name in libpq and value is not None}
    if role := connection.settings_dict["OPTIONS"].get("assume_role"):
        escaped = str(role).replace("\\", "\\\\").replace(" ", "\\ ")
        named["options"] = f"{named.get('options', '')} -c role={escaped}".strip()
    return make_conninfo("", **named)
