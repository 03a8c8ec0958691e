"""Each version of Node's worker, started on a schema we installed, with all that its ledger may hold.

The table is that of database.md 1.7, whose schemas were restored from dumps of Node's own; on ours the same comes out.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import psycopg
import pytest

from interop import ledger, node
from interop.host import NodeWorker, Refused

pytestmark = [pytest.mark.usefixtures("packages"), pytest.mark.direction("schema ours, ledger changed: Node starts")]

OTHER_NAMES = (
    "drop function add_jobs",
    "create function add_jobs(other_specs job_spec[], keep boolean default false) returns setof _private_jobs"
    " language sql as 'select null::graphile_worker._private_jobs'",
)

# What was done to rows 1 to 20; then for 0.16.6, 0.17.3 and 0.18.0 how it starts, and the rows it leaves from 18 on, a
# breaking one with a "!". It starts silently, or warns and starts, or refuses (a process of its own would end with
# exit code 57), or fails on what is there (no exit code of its own).
TABLE = {
    "1 to 20, as we install it": (
        [], "refuses 18 19! 20", "warns 18 19! 20", "silently 18 19! 20",
    ),
    "1 to 19": (
        ["delete from migrations where id > 19"], "refuses 18 19!", "silently 18 19!", "silently 18 19! 20",
    ),
    "1 to 18": (
        ["delete from migrations where id > 18"], "silently 18", "silently 18 19!", "silently 18 19! 20",
    ),
    "1 to 19, 19 not breaking": (
        ["delete from migrations where id > 19", "update migrations set breaking = false where id = 19"],
        "warns 18 19", "silently 18 19", "silently 18 19 20",
    ),
    "only 19": (
        ["delete from migrations where id <> 19"], "refuses 19!", "silently 19!", "silently 19! 20",
    ),
    "only 18": (
        ["delete from migrations where id <> 18"], "silently 18", "silently 18 19!", "silently 18 19! 20",
    ),
    "1 to 19, no column": (
        ["delete from migrations where id > 19", "alter table migrations drop breaking"],
        "warns 18 19", "silently 18 19!", "silently 18 19! 20",
    ),
    "only 19, no column": (
        ["delete from migrations where id <> 19", "alter table migrations drop breaking"],
        "warns 19", "fails 19!", "fails 19!",
    ),
    "empty": (
        ["delete from migrations"], "fails", "fails", "fails",
    ),
    "20 and 21, not breaking": (
        ["insert into migrations (id) values (21)"],
        "refuses 18 19! 20 21", "warns 18 19! 20 21", "warns 18 19! 20 21",
    ),
    "a breaking one, unknown": (
        ["insert into migrations (id, breaking) values (1000000, true)"],
        "refuses 18 19! 20 1000000!", "refuses 18 19! 20 1000000!", "refuses 18 19! 20 1000000!",
    ),
    "add_jobs with other argument names": (
        ["delete from migrations where id > 19", *OTHER_NAMES], "refuses 18 19!", "silently 18 19!", "fails 18 19!",
    ),
}  # fmt: skip


def start(worker: NodeWorker, conninfo: str) -> str:
    """Start to work, and have a job done; return how it went, in the words of the table."""
    try:
        worker.run({"greet": "tell(payload)"})
    except Refused as error:
        return {(57, True): "refuses", (None, False): "fails"}[error.exit_code, "breaking migration" in str(error)]
    with psycopg.connect(conninfo) as connection:
        connection.execute("""select graphile_worker.add_job('greet', '"hello"')""")
    assert worker.told() == "hello"
    assert all("schema revision" in warning for warning in worker.warnings), worker.warnings
    return "warns" if worker.warnings else "silently"


@pytest.mark.parametrize("version", node.VERSIONS)
@pytest.mark.parametrize("state", TABLE)
def test_node_starts_or_not(
    state: str, version: str, migrated_url: str, node_worker: Callable[..., NodeWorker]
) -> None:
    statements, *expected = TABLE[state]
    ledger.rewrite(migrated_url, *statements)
    with node_worker(version, migrated_url) as worker:
        started = start(worker, migrated_url)
    rows = [f"{number}!" if breaking else f"{number}" for number, breaking in ledger.rows(migrated_url) if number > 17]
    assert " ".join([started, *rows]) == expected[node.VERSIONS.index(version)]


@pytest.mark.parametrize("version", node.LIVING)
def test_the_oldest_is_refused_once_another_was_there(
    version: str, migrated_url: str, node_worker: Callable[..., NodeWorker]
) -> None:
    ledger.rewrite(migrated_url, "delete from migrations where id > 18")
    with node_worker(version, migrated_url) as worker:
        worker.migrate()
    with node_worker(node.REFUSED, migrated_url) as worker:
        assert start(worker, migrated_url) == "refuses"


@pytest.mark.parametrize("version", node.VERSIONS)
def test_its_command_exits_with_1_where_it_refuses(version: str, migrated_url: str) -> None:
    ledger.rewrite(migrated_url, "insert into migrations (id, breaking) values (1000000, true)")
    environment = node.environment(version, migrated_url)
    command = [*node.cli(version), "--schema-only"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done
    assert "breaking migration 1000000" in done.stdout + done.stderr
