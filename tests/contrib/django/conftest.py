"""The project of project/, set up once for all tests in this process, with a test database as Django makes it.

POST_DRIVER=psycopg2 has all of them go over that driver.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import django
import pytest

PROJECT = Path(__file__).parent / "project"
sys.path.insert(0, str(PROJECT))
_environment = {name: os.environ.get(name) for name in ("TZ", "DJANGO_SETTINGS_MODULE")}
os.environ["DJANGO_SETTINGS_MODULE"] = "post.settings"
django.setup()  # here, for the modules with the tests import models
# The environment belongs to the other tests too, and with it the time zone, which Django has set for the whole process.
for _name, _value in _environment.items():
    os.environ.pop(_name) if _value is None else os.environ.update({_name: _value})
time.tzset()


def _server(option: object) -> dict[str, str]:
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}
    return {name: str(getattr(option, f"postgresql_{word}")) for name, word in names.items()}


@pytest.fixture(scope="session", autouse=True)
def _test_database(pytestconfig: pytest.Config) -> Iterator[None]:
    """Have Django make its test database, on the server that all tests use, and drop it at the end."""
    from django.db import connections
    from django.test.utils import setup_databases, setup_test_environment, teardown_databases, teardown_test_environment

    connections.settings["default"].update(_server(pytestconfig.option), NAME=f"gwpy_django_{os.getpid()}")
    setup_test_environment(debug=False)
    made = setup_databases(verbosity=0, interactive=False, aliases={"default": False})
    name = connections.settings["default"]["NAME"]
    connections.settings["other"].update(_server(pytestconfig.option), NAME=name)  # a second connection to the same
    yield
    teardown_databases(made, verbosity=0)
    teardown_test_environment()


@pytest.fixture
def project_url() -> Iterator[str]:
    """Return the conninfo of a database of this test's own, with the tables of the project."""
    from django.db import connections
    from psycopg import connect
    from psycopg.conninfo import make_conninfo
    from psycopg.sql import SQL, Identifier

    from graphile_worker_py.contrib.django.conf import conninfo

    connections.close_all()  # a database that is in use cannot be copied
    source, name = connections["default"].settings_dict["NAME"], f"gwpy_django_copy_{os.getpid()}"
    with connect(conninfo("default"), dbname="postgres", autocommit=True) as server:
        server.execute(SQL("create database {} template {}").format(Identifier(name), Identifier(source)))
        yield make_conninfo(conninfo("default"), dbname=name, client_encoding=None)
        server.execute(SQL("drop database {} with (force)").format(Identifier(name)))
