"""A program that adds jobs over Django's own connections; its arguments are the driver and a conninfo."""

# ruff: noqa: E402, PT017 - Django is configured between the imports, and nothing of pytest is here

from __future__ import annotations

import sys

driver, conninfo = sys.argv[1:]
if driver == "psycopg2":
    sys.modules["psycopg"] = None  # type: ignore[assignment]  # Django takes the newer one where there is one

import django
from django.conf import settings

server = dict(part.split("=", 1) for part in conninfo.split())
database = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": server["dbname"],
    "HOST": server["host"],
    "PORT": server["port"],
    "USER": server["user"],
    "PASSWORD": server.get("password", ""),
}
other = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
settings.configure(DATABASES={"default": database, "other": other}, USE_TZ=True, TIME_ZONE="Asia/Kathmandu")
django.setup()

from django.db import InternalError, OperationalError, connection, connections, transaction
from django.db.backends.postgresql.base import is_psycopg3

if driver == "psycopg2":
    del sys.modules["psycopg"]

from graphile_worker_py import InvalidJobSpec, JobSpec, NotSupported, Queue
from graphile_worker_py.testing import drain

assert is_psycopg3 == (driver == "psycopg")
queue = Queue(conninfo)


def stored() -> list[str]:
    return [info.task_identifier for info in queue.jobs()]


# Outside of a block Django commits each statement.
for given in (connection, connections["default"]):
    job = queue.add_job("at once", {"a": 1}, flags=["f"], connection=given)
    assert queue.job(job.id) == job
    assert queue.complete_jobs([job.id], connection=given) == [job]

with transaction.atomic():
    queue.add_jobs([JobSpec("kept")], connection=connection)
    try:
        with transaction.atomic():
            queue.add_job("undone", connection=connection)
            raise LookupError
    except LookupError:
        pass
    assert stored() == []
assert stored() == ["kept"]

# In a broken block, and for a statement that breaks it, errors are Django's.
try:
    with transaction.atomic():
        try:
            queue.add_job("kept", connection=connection)
            connection.cursor().execute("select 1 / 0")
        except Exception:
            queue.add_job("never", connection=connection)
except InternalError as error:
    assert "current transaction is aborted" in str(error)
else:
    raise AssertionError
with transaction.atomic():
    transaction.set_rollback(True)
    try:
        queue.add_job("never", connection=connection)
    except transaction.TransactionManagementError as error:
        assert "until the end of the 'atomic' block" in str(error)
    else:
        raise AssertionError
assert stored() == ["kept"]

# A test case runs jobs in its own transaction.
with transaction.atomic():
    ran = []

    @queue.task
    def kept(payload: object) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("create table effects (n int)")
        ran.append(payload)

    assert drain(queue, connection=connection).tasks == ["kept"]
    transaction.set_rollback(True)
assert "effects" not in connection.introspection.table_names()
assert stored() == ["kept"]

# A connection that was lost is Django's to replace, at the end of the request.
with connection.cursor() as cursor:
    cursor.execute("select pg_backend_pid()")
    with queue.database.connect() as killer:
        killer.execute("select pg_terminate_backend(%s)", cursor.fetchone())
try:
    queue.add_job("never", connection=connection)
except OperationalError:
    connection.close_if_unusable_or_obsolete()
else:
    raise AssertionError
queue.add_job("again", connection=connection)
assert stored() == ["kept", "again"]

for given, kind in ((connections["other"], NotSupported), ("default", InvalidJobSpec)):
    try:
        queue.add_job("never", connection=given)
    except kind as error:
        print(error)
    else:
        raise AssertionError
connection.close()
queue.close()
