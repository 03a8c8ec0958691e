"""The pytest plugin: a queue in a schema of the test's own, drain(), and what was enqueued.

pytest imports this at every start, so it imports nothing but pytest; a fixture imports graphile_worker_py when it is
asked for. docs/testing.md says how to use it, graphile_worker_py/testing.py does the work.
"""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from graphile_worker_py import Queue
    from graphile_worker_py.testing import AssertEnqueued, Drain, Enqueued, Schemas


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the settings of the ini file."""
    parser.addini("graphile_worker_database", "where tests have their jobs: a conninfo or URL, instead of DATABASE_URL")
    parser.addini("graphile_worker_queue", "the Queue that tests use: module:attribute, such as myapp.jobs:queue")


@pytest.fixture(scope="session")
def graphile_worker_database(pytestconfig: pytest.Config) -> Iterator[str]:
    """Return the conninfo of the database to make schemas in; override it to use one of yours."""
    named = pytestconfig.getini("graphile_worker_database")
    if named:
        yield str(named)
        return
    from graphile_worker_py.testing import postgres

    with postgres() as conninfo:
        yield conninfo


@pytest.fixture
def graphile_worker_queue(pytestconfig: pytest.Config) -> Queue:
    """Return the queue to put into the test's schema; override it, or name it in the ini file, to use your own."""
    from graphile_worker_py import Queue

    named = pytestconfig.getini("graphile_worker_queue")
    queue = pkgutil.resolve_name(str(named)) if named else Queue()
    if not isinstance(queue, Queue):
        raise pytest.UsageError(f"graphile_worker_queue: expected {named} to be a Queue, got {type(queue).__name__}")
    return queue


@pytest.fixture
def graphile_worker_connection() -> object:
    """Return the psycopg connection to do everything on, inside the test's transaction; override it, None is none."""
    return None


@pytest.fixture(scope="session")
def _graphile_worker_schemas() -> Iterator[Schemas]:
    from graphile_worker_py.testing import Schemas

    schemas = Schemas()
    yield schemas
    schemas.close()


@pytest.fixture
def graphile_worker(
    request: pytest.FixtureRequest,
    graphile_worker_database: str,
    graphile_worker_queue: Queue,
    graphile_worker_connection: object,
) -> Iterator[Queue]:
    """Return the queue, in a schema that is migrated, empty, and dropped at the end.

    On graphile_worker_connection, where there is one, it is the schema of the whole session, and empty because every
    test before has rolled back.
    """
    from graphile_worker_py.testing import placed, placed_on

    if graphile_worker_connection is None:
        placing = placed(graphile_worker_queue, graphile_worker_database)
    else:
        schemas: Schemas = request.getfixturevalue("_graphile_worker_schemas")
        schema = schemas.of(graphile_worker_database)
        placing = placed_on(graphile_worker_queue, graphile_worker_connection, schema)
    with placing:
        yield graphile_worker_queue


@pytest.fixture
def drain(graphile_worker: Queue) -> Drain:
    """Return the function that runs due jobs in this thread: see graphile_worker_py.testing.drain."""
    from graphile_worker_py import testing

    return functools.partial(testing.drain, graphile_worker)


@pytest.fixture
def enqueued(graphile_worker: Queue) -> Enqueued:
    """Return the function that finds waiting jobs: see graphile_worker_py.testing.enqueued."""
    from graphile_worker_py import testing

    return functools.partial(testing.enqueued, graphile_worker)


@pytest.fixture
def assert_enqueued(graphile_worker: Queue) -> AssertEnqueued:
    """Return the function that insists on a waiting job: see graphile_worker_py.testing.assert_enqueued."""
    from graphile_worker_py import testing

    return functools.partial(testing.assert_enqueued, graphile_worker)
