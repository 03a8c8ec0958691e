"""Dead rows: whether they are removed in time, what keeps them, and what they have left behind."""

from __future__ import annotations

from collections.abc import Iterator

from graphile_worker_py.doctor.findings import OLD, Finding, age, listed, note, ok, problem, size, warning
from graphile_worker_py.doctor.server import RELOAD
from graphile_worker_py.doctor.visit import Visit

JOBS = "_private_jobs"
FINE = 0.05  # of a table dead: as late as autovacuum may come
RECENT = 600.0  # seconds since a vacuum that has removed what it could
BLOATED = 3  # times what an index would take if it were new


def autovacuum(visit: Visit) -> Iterator[Finding]:
    """Does autovacuum come, and in time?"""
    off = [name for name in ("autovacuum", "track_counts") if visit.settings[name] == "off"]
    for name in off:
        yield problem(
            f"{name} is off: dead rows are never removed, claims become slower and slower, and in the end the server "
            "takes no more writes",
            "turn it on",
            f"alter system set {name} = on",
            RELOAD,
        )
    tables = visit.look("doctor_autovacuum")
    if without := {name: mend for name, enabled, _, mend, _ in tables if not enabled}:
        yield problem(
            f"autovacuum is off for {listed(list(without))}: dead rows are never removed there",
            "turn it on",
            *without.values(),
        )
    share = float(visit.settings["autovacuum_vacuum_scale_factor"])
    late = [mend for name, _, has_own, _, mend in tables if name == JOBS and not has_own and share > FINE]
    if late:
        yield note(
            f"autovacuum comes to the table of jobs when {share:.0%} of it is dead: with a backlog that is late, for "
            "each job leaves two dead rows",
            "let it come earlier and work without pauses; this locks out nobody",
            *late,
        )
    if not (off or without or late):
        yield ok("autovacuum is on, and comes early to the table of jobs")


def dead_rows(visit: Visit) -> Iterator[Finding]:
    """Are there more dead rows than living ones, and has nobody come for them?"""
    found = [
        (name, living, dead, since, mend)
        for name, living, dead, since, mend in visit.look("doctor_dead_rows")
        if dead > max(visit.thresholds.dead_rows, living) and (since is None or since > RECENT)
    ]
    for name, living, dead, since, mend in found:
        last = "never vacuumed" if since is None else f"vacuumed {age(since)} ago"
        yield warning(
            f"{name} has {dead:,} dead rows and {living:,} living ones, and was {last}: claims read past all of them",
            "vacuum it; if they stay, see old-transactions, and if they come back, autovacuum",
            mend,
        )
    if not found:
        yield ok("no table has more dead rows than living ones for long")


def index_bloat(visit: Visit) -> Iterator[Finding]:
    """Are there indexes that are mostly empty?"""
    limit = visit.thresholds.bloat_bytes
    found = [
        (name, taken, needed, mend)
        for name, taken, needed, mend in visit.look("doctor_index_bloat")
        if taken - needed > limit and taken > BLOATED * needed
    ]
    for name, taken, needed, mend in found:
        yield note(
            f"index {name} takes {size(taken)}, about {size(needed)} would do for what is in it now",
            "build it anew, beside the work that goes on, unless a backlog will fill it again",
            mend,
        )
    if not found:
        yield ok("no index is much larger than it has to be")


def old_transactions(visit: Visit) -> Iterator[Finding]:
    """Who keeps dead rows from being removed?"""
    limit = visit.thresholds.old_transaction.total_seconds()
    found = visit.look("doctor_old_transactions", {"seconds": limit})
    for pid, application, role, state, seconds, mend in found:
        yield (problem if seconds > OLD * limit else warning)(
            f"process {pid} ({application or 'without a name'}, role {role}, {state}) is in a transaction that is "
            f"{age(seconds)} old: no row that died since then can be removed",
            "end it there, or from here",
            mend,
        )
    if not found:
        yield ok("no transaction is old")
