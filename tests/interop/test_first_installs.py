"""Ten installers of ours and ten of Node's at once on an empty database, round after round: every one succeeds.

The programs are started once, so a round costs what the installs cost: under a second on two cores, mostly because
Node's losers of a race wait for half a second. INSTALL_ROUNDS says how many; `make test-interop` makes fifty.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from interop import dump, ledger, node
from interop.host import DEADLINE, Host, NodeWorker, node_host, python_host

pytestmark = [pytest.mark.usefixtures("packages"), pytest.mark.direction("10 of Node's and 10 of ours install at once")]

ROUNDS = int(os.environ.get("INSTALL_ROUNDS", "10"))
EACH = 10


@pytest.fixture
def installers(packages: None) -> Iterator[tuple[list[Host], list[Host]]]:
    """Return ten programs that install as ours do, and ten of Node's, both living versions taking turns."""
    with ExitStack() as stack:
        ours = [python_host() for _ in range(EACH)]
        nodes = [node_host(version) for version in itertools.islice(itertools.cycle(node.LIVING), EACH)]
        for host in [*ours, *nodes]:
            stack.callback(host.close)
        for host in [*ours, *nodes]:
            host.ready.result(DEADLINE)
        yield ours, nodes


@pytest.fixture
def new_database(database_url: str) -> Iterator[Callable[[], str]]:
    """Return a function that makes an empty database in place of the last one, and returns its conninfo."""
    with psycopg.connect(database_url, autocommit=True) as db:
        name = f"{db.info.dbname}_round"

        def drop() -> None:
            db.execute(sql.SQL("drop database if exists {}").format(sql.Identifier(name)))

        def make() -> str:
            drop()
            db.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            return make_conninfo(database_url, dbname=name)

        yield make
        drop()


def install(url: str, ours: list[Host], nodes: list[Host], *, node_first: bool) -> list[tuple[int, ...]]:
    """Tell all of them to install, wait for all of them, and return what each of ours added."""
    with ExitStack() as stack:
        theirs = [stack.enter_context(NodeWorker(host, url)) for host in nodes]
        told = [worker.start_to_migrate() for worker in theirs] if node_first else []
        asked = [host.send("migrate", database=url) for host in ours]
        told = told or [worker.start_to_migrate() for worker in theirs]
        answers = [future.result(DEADLINE) for future in [*told, *asked]]
        assert [answer["error"] for answer in answers if "error" in answer] == []
        assert [worker.warnings for worker in theirs if worker.warnings] == []
    return [tuple(answer["result"]) for answer in answers[len(told) :]]


@pytest.mark.timeout(60 + 6 * ROUNDS)
def test_every_one_succeeds(
    installers: tuple[list[Host], list[Host]], new_database: Callable[[], str], tally: Callable[..., None]
) -> None:
    ours, nodes = installers
    seen: Counter[str] = Counter()
    shape: dump.Dump = {}
    for number in range(ROUNDS):
        url = new_database()
        added = install(url, ours, nodes, node_first=bool(number % 2))
        assert ledger.rows(url) == ledger.as_written(20)
        numbers = [number for numbers in added for number in numbers]
        assert len(numbers) == len(set(numbers))  # nothing was done twice
        seen["rounds_node_won" if len(numbers) < 20 else "rounds_ours_won"] += 1
        made = dump.without_bodies(dump.without_ours(dump.pieces(url)))
        assert dump.different(made, shape or made) == set()
        shape = made
    tally(rounds=ROUNDS, installs=2 * EACH * ROUNDS, **seen)
