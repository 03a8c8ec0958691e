"""The doctor: look at everything in and around a queue that can hurt, and say what to do about each.

`examine(queue)` returns a Finding for each check, in the order of CHECKS, which is from the server down to the jobs. A
check is a function that yields what it finds. One that cannot be made, for a privilege that is missing, a lock or the
time it would take, says so in a note, and the others go on. Nothing is written, and nothing is waited for for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

import attrs

from graphile_worker_py.doctor import reaching, schema, server, vacuum, work
from graphile_worker_py.doctor.findings import LEVELS, Finding, Level, Thresholds, note
from graphile_worker_py.doctor.visit import Unseen, Visit
from graphile_worker_py.errors import InvalidJobSpec
from graphile_worker_py.queue import Queue

__all__ = ["CHECKS", "LEVELS", "Finding", "Level", "Thresholds", "examine"]

Check = Callable[[Visit], Iterator[Finding]]

SCHEMA = "schema"

# Those of the server and of the way to it; then the schema, and what can be looked at only where there is one.
AROUND: dict[str, Check] = {
    "version": server.version,
    "durability": server.durability,
    "synchronous-commit": server.synchronous_commit,
    "read-only": server.read_only,
    "isolation": server.isolation,
    "timeouts": server.timeouts,
    "connections": server.connections,
    "pooler": reaching.pooler,
    "tls": reaching.tls,
    "clock": reaching.clock,
    "notifications": reaching.notifications,
    "notification-queue": server.notification_queue,
    "visibility": schema.visibility,
    "old-transactions": vacuum.old_transactions,
    "prepared-transactions": server.prepared_transactions,
    "replication-slots": server.replication_slots,
    "standby-feedback": server.standby_feedback,
    "transaction-ids": server.transaction_ids,
    SCHEMA: schema.ledger,
}
WITHIN: dict[str, Check] = {
    "own-tables": schema.own_tables,
    "owners": schema.owners,
    "rights": schema.rights,
    "row-security": schema.row_security,
    "indexes": schema.indexes,
    "identities": schema.identities,
    "autovacuum": vacuum.autovacuum,
    "dead-rows": vacuum.dead_rows,
    "index-bloat": vacuum.index_bloat,
    "workers": work.workers,
    "locks": work.locks,
    "waiting": work.waiting,
    "unknown-tasks": work.unknown_tasks,
    "failed": work.failed,
}
CHECKS = (*AROUND, *WITHIN)


def examine(queue: Queue, *, skip: Iterable[str] = (), thresholds: Thresholds | None = None) -> list[Finding]:
    """Look at everything that can hurt, and return what was found, at least one Finding for each check.

    The tasks of the queue, if it has some, are those that a worker is to have. skip: names of checks to leave out.
    Raises InvalidJobSpec for a name that is none, and psycopg's errors if the database cannot be reached.
    """
    left_out = frozenset(skip)
    if unknown := sorted(left_out.difference(CHECKS)):
        raise InvalidJobSpec(f"skip: no check is called {unknown[0]!r}; there are {', '.join(CHECKS)}")
    tasks = frozenset(queue.tasks.identifiers()) or None
    with closing(queue.database.connect()) as connection:
        connection.prepare_threshold = None  # a pooler may stand in between
        visit = Visit(queue.database, connection, tasks=tasks, thresholds=thresholds or Thresholds())
        found = _run(visit, AROUND, left_out)
        if not any(finding.check == SCHEMA and finding.level == "problem" for finding in found):
            found += _run(visit, WITHIN, left_out)
    return found


def _run(visit: Visit, checks: dict[str, Check], left_out: frozenset[str]) -> list[Finding]:
    found = []
    for name, check in checks.items():
        if name in left_out:
            continue
        try:
            found += [attrs.evolve(each, check=name) for each in check(visit)]
        except Unseen as error:
            what, _, do = str(error).rpartition(": ")
            found.append(attrs.evolve(note(f"not looked at: {what}", do), check=name))
    return found
