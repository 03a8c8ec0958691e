"""Tests that need Node skip themselves where it is missing, and say why."""

from __future__ import annotations

import os

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pytest_postgresql import factories

from interop import node, replay


@pytest.fixture(scope="session")
def packages() -> None:
    """Skip the test where Node's workers cannot be installed."""
    try:
        node.installed()
        for version in node.VERSIONS:
            node.binary(version)
    except node.Unavailable as missing:
        pytest.skip(str(missing))


def _conninfo(**server: object) -> str:
    return make_conninfo("", **{name: value for name, value in server.items() if value})


def _install_both(**server: object) -> None:
    replay.install(_conninfo(**server))


both_server = factories.postgresql_noproc(dbname=f"gwpy_both_{os.getpid()}", load=[_install_both])
both_database = factories.postgresql("both_server")


@pytest.fixture
def both_url(packages: None, both_database: psycopg.Connection) -> str:
    """Return the conninfo of a database of this test's own, with Node's schema and ours side by side."""
    names = ("host", "port", "user", "dbname", "password")
    server = {name: getattr(both_database.info, name) for name in names}
    both_database.close()
    return _conninfo(**server)
