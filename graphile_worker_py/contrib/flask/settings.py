"""The keys GRAPHILE_WORKER_* of app.config: where the jobs are, how to connect, and how `flask worker run` works."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import attrs

from graphile_worker_py._conninfo import check_conninfo
from graphile_worker_py.errors import GraphileWorkerError, InvalidConninfo

PREFIX = "GRAPHILE_WORKER_"
WHERE = f"{PREFIX}DATABASE_URL"
# These are arguments of Queue, in capitals.
OF_QUEUE = (
    "SCHEMA",
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
# These are options of `run`, with the names of their environment variables.
OF_RUN = (
    "TASKS",
    "TASKS_TIMEOUT",
    "CONCURRENCY",
    "PROCESSES",
    "RELOAD",
    "POLL_INTERVAL",
    "GRACE",
    "STUCK_AFTER",
    "FORBIDDEN_FLAG",
    "CRONTAB",
    "HISTORY",
    "LOG_LEVEL",
    "LOG_FORMAT",
    "HEALTH_PORT",
)
KNOWN = ("DATABASE_URL", *OF_QUEUE, *OF_RUN)


class InvalidSetting(GraphileWorkerError, ValueError):
    """Say which key of app.config is wrong, and what it may be."""


@attrs.frozen
class Settings:
    """The keys, read: where the jobs are, the arguments of Queue, the options of `run`."""

    database: Any
    queue: Mapping[str, Any]
    run: Mapping[str, Any]


def read(config: Mapping[str, Any]) -> Settings:
    """Return what app.config says; raise InvalidSetting for a key that there is not."""
    for key in config:
        name = key.removeprefix(PREFIX)
        if name != key and name not in KNOWN:
            near = difflib.get_close_matches(name, KNOWN, n=1)
            hint = f"did you mean {PREFIX}{near[0]}?" if near else f"after {PREFIX} may come {', '.join(KNOWN)}"
            raise InvalidSetting(f"app.config has {key}, which is no setting; {hint}")
    run = {name.lower(): config[PREFIX + name] for name in OF_RUN if PREFIX + name in config}
    if isinstance(run.get("history"), timedelta):
        run["history"] = f"{run['history'].total_seconds()}s"  # as an option has it
    queue = {name.lower(): config[PREFIX + name] for name in OF_QUEUE if PREFIX + name in config}
    return Settings(_database(config), queue, run)


def _database(config: Mapping[str, Any]) -> Any:
    """Return where the jobs are: where it is said, else in the database of Flask-SQLAlchemy, if that is PostgreSQL.

    A job in the transaction of a session has to be in the session's database. None: as the environment says.
    """
    if config.get(WHERE) is not None:
        return config[WHERE]
    uri = config.get("SQLALCHEMY_DATABASE_URI")
    text = uri if isinstance(uri, str) or uri is None else uri.render_as_string(hide_password=False)
    url, found = re.subn(r"^postgres(ql)?(\+\w+)?://", "postgresql://", text or "")  # libpq knows no drivers
    if not found:
        return None
    try:
        return check_conninfo(url.replace(" ", "%20"))  # SQLAlchemy writes them as they are, libpq refuses them
    except InvalidConninfo as error:
        raise InvalidSetting(
            "app.config has a SQLALCHEMY_DATABASE_URI that is for SQLAlchemy only, "
            f"so say in {WHERE} where the jobs are: {error}"
        ) from error
