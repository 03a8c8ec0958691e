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
os.environ["DJANGO_SETTINGS_MODULE"] = "post.settings"
_zone = os.environ.get("TZ")
django.setup()  # here, for the modules with the tests import models
# It has set the time zone of the whole process, which belongs to the other tests too.
os.environ.pop("TZ") if _zone is None else os.environ.update(TZ=_zone)
time.tzset()


@pytest.fixture(scope="session", autouse=True)
def _test_database(pytestconfig: pytest.Config) -> Iterator[None]:
    """Have Django make its test database, on the server that all tests use, and drop it at the end."""
    from django.db import connections
    from django.test.utils import setup_databases, setup_test_environment, teardown_databases, teardown_test_environment

    option = pytestconfig.option
    server = {
        "HOST": option.postgresql_host,
        "PORT": option.postgresql_port,
        "USER": option.postgresql_user,
        "PASSWORD": option.postgresql_password,
        "NAME": f"gwpy_django_{os.getpid()}",
    }
    connections.settings["default"].update(server)
    setup_test_environment(debug=False)
    made = setup_databases(verbosity=0, interactive=False, aliases={"default": False})
    yield
    teardown_databases(made, verbosity=0)
    teardown_test_environment()
