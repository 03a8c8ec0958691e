"""The command roles: what it prints is what it runs, it asks before that, and every wrong call is one line."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest
from command_line import assert_error, graphile
from psycopg import sql
from rights import ACTIONS, Stage, owners, staged, table
from terminal import terminal

from graphile_worker_py import roles


@pytest.fixture
def stage(migrated_url: str) -> Iterator[Stage]:
    with staged(migrated_url) as stage:
        yield stage


def named(stage: Stage) -> list[str]:
    """Return the options that name the roles of a stage."""
    names = {what: getattr(stage.roles, what) for what in (*roles.KINDS, "producer_schema")}
    members = [option for kind, name in stage.roles.members for option in ("--grant", f"{kind}={name}")]
    return [*members, *(f"--{what.replace('_', '-')}={name}" for what, name in names.items())]


def test_the_command_prints_what_it_would_run(stage: Stage, migrated_url: str) -> None:
    options = ["roles", *named(stage), "--task", "task", "--task", "another"]
    printed = graphile(*options, more={"DATABASE_URL": "host=nowhere.invalid"})
    assert (printed.returncode, printed.stderr) == (0, "")
    assert printed.stdout == roles.set_up(attrs.evolve(stage.roles, tasks=["task", "another"])).as_string()
    stage.admin.execute(printed.stdout.encode())
    assert table(stage) == ACTIONS
    done = graphile(*options, "--apply", "--yes", "--database", migrated_url)
    assert (done.stdout, done.stderr) == ("Schema 'graphile_worker': roles are set up.\n", "")
    done = graphile("roles", *named(stage)[8:], "--revoke", "--apply", "--yes", "--database", migrated_url)
    assert (done.returncode, done.stdout) == (0, "Schema 'graphile_worker': nothing is granted any more.\n"), (
        done.stderr
    )


def test_the_command_asks_and_says_who_loses_the_tables(stage: Stage, migrated_url: str) -> None:
    owner = stage.logins["outsider"]
    everything = sql.SQL("alter table graphile_worker._private_jobs owner to {}").format(sql.Identifier(owner))
    stage.admin.execute(everything)
    options = ["roles", *named(stage), "--apply", "--database", migrated_url]
    assert_error(graphile(*options), 2, f"The tables belong to '{owner}'", "for all tasks?", "--yes")
    with terminal(*options, columns=400) as screen:
        screen.wait_for("for all tasks? [y/N]")
        screen.type("n\n")
        assert screen.close()[0] == 1
    assert owners(stage) == {stage.admin.info.user, owner}
    with terminal(*options, columns=400) as screen:
        screen.wait_for("[y/N]")
        screen.type("y\n")
        code, shown = screen.close()
    assert (code, shown.splitlines()[-1]) == (0, "Schema 'graphile_worker': roles are set up.")
    assert owners(stage) == {stage.roles.owner}


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--grant", "worker"], 2, "'worker' is not KIND=ROLE"),
        (["--grant", "boss=ann"], 2, "one of migrator, worker, producer, viewer"),
        (["--owner", ""], 2, "empty"),
        (["--owner", "pg_me"], 2, "owner: 'pg_me' is reserved"),
        (["--task", "x" * 200], 2, "1 to 128 characters"),
        (["--schema", "public"], 2, "neither may be public"),
        (["--revoke", "--create-schema"], 2, "--revoke goes with neither"),
        (["--schema", "not there", "--apply", "--yes"], 4, "'not there' is not installed"),
        (["--apply", "--yes", "--database", "host=127.0.0.1 port=1"], 3, "cannot reach the database"),
    ],
)
def test_a_wrong_call_is_one_line(options: list[str], code: int, text: str, migrated_url: str) -> None:
    assert_error(graphile("roles", "--database", migrated_url, *options), code, text)
