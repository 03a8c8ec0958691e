"""The texts of statements, one to a file in sql/.

`{schema}` becomes the quoted schema, `{job}` the columns of Job for a row called j, and a `%(name)s` the number of a
parameter: here, once, and not by psycopg, which reads a long statement anew each time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any, cast

from psycopg import sql

JOB_COLUMNS = """j.id, j.job_queue_id, j.payload::text, j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error,
    j.created_at, j.updated_at, j.key, j.locked_at, j.locked_by, j.revision,
    case when j.flags is not null then array(select jsonb_object_keys(j.flags)) end as flags"""

# Found now, for that imports modules, and a process forked in the middle of another thread's import waits for ever.
_FOLDER = files("graphile_worker_py").joinpath("sql")


def compose(text: str, schema: str, words: Mapping[str, sql.Composable] | None = None) -> sql.Composed:
    """Return SQL text with {schema}, {job} and further words filled in, to be run without parameters."""
    known = {"schema": sql.Identifier(schema), "job": sql.SQL(cast("Any", JOB_COLUMNS))}
    return sql.SQL(cast("Any", text)).format(**known, **(words or {}))


def source(name: str) -> str:
    """Return the text of sql/<name>.sql as it is written."""
    return _FOLDER.joinpath(f"{name}.sql").read_text("utf-8")


@lru_cache(maxsize=1024)
def statement(name: str, schema: str) -> tuple[bytes, tuple[str, ...]]:
    """Return sql/<name>.sql with numbered parameters, and their names in that order."""
    names: dict[str, int] = {}
    numbered = re.sub(
        r"%\((\w+)\)s", lambda found: f"${names.setdefault(found[1], len(names) + 1)}", _without_comments(name)
    )
    return compose(numbered, schema).as_bytes(), tuple(names)


@lru_cache(maxsize=256)
def statement_of_psycopg2(name: str, schema: str) -> str:
    """Return sql/<name>.sql with its parameters named, and every other per cent sign doubled, as psycopg2 wants it."""
    text = re.sub(r"%(?!\(\w+\)s)", "%%", _without_comments(name))
    return compose(text, schema.replace("%", "%%")).as_string()


def _without_comments(name: str) -> str:
    lines = source(name).splitlines()
    return "\n".join(line for line in lines if not line.startswith("--"))  # what is for readers need not travel
