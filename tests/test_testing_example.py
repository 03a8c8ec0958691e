"""The example of testing: its tests pass, and fail if the application does not do what they say."""

from __future__ import annotations

import shutil

import psycopg
import pytest
from command_line import ROOT

FOLDER = ROOT / "examples" / "testing"


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, database_url: str) -> pytest.Pytester:
    """Return pytester in a copy of the example, with a database of this test's own."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    for file in FOLDER.glob("*.py"):
        shutil.copy(file, pytester.path)
    return pytester


def test_its_tests_pass_and_leave_nothing_behind(run: pytest.Pytester, database_url: str) -> None:
    run.runpytest_subprocess("-W", "error").assert_outcomes(passed=4)
    with psycopg.connect(database_url) as connection:
        names = "select nspname from pg_namespace where nspname like 'graph%'"
        assert connection.execute(names).fetchall() == []
        assert connection.execute("select to_regclass('readers')").fetchone() == (None,)


def test_its_tests_fail_if_the_application_is_wrong(run: pytest.Pytester) -> None:
    app = run.path / "app.py"
    text = app.read_text("utf-8")
    app.write_text(text.replace("timedelta(weeks=1)", "timedelta(days=1)").replace("and not gone", ""), "utf-8")
    done = run.runpytest_subprocess()
    done.assert_outcomes(passed=2, failed=2)
    done.stdout.fnmatch_lines(["FAILED test_app.py::test_a_reader_gets_two_letters*"])
    done.stdout.fnmatch_lines(["FAILED test_app.py::test_who_is_gone_gets_no_more*"])
