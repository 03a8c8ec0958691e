"""The server: its version and settings, how many connections it has left, and what it has promised to others."""

from __future__ import annotations

from collections.abc import Iterator

from graphile_worker_py.doctor.findings import FULL, Finding, age, note, ok, problem, size, warning
from graphile_worker_py.doctor.visit import Visit

OLDEST, NEWEST = 13, 18
SHORT = 5_000  # milliseconds that a statement should have

RELOAD = "select pg_reload_conf()"


def version(visit: Visit) -> Iterator[Finding]:
    """Is the server one that we are tested with?"""
    number, text = int(visit.settings["server_version_num"]) // 10_000, visit.settings["server_version"]
    if number < OLDEST:
        yield problem(f"the server is PostgreSQL {text}, {OLDEST} to {NEWEST} are supported", "upgrade the server")
    elif number > NEWEST:
        yield note(f"the server is PostgreSQL {text}, newer than {NEWEST}", "look for a newer graphile-worker-py")
    else:
        yield ok(f"PostgreSQL {text}")


def durability(visit: Visit) -> Iterator[Finding]:
    """Does the server keep what it has confirmed?"""
    off = [name for name in ("fsync", "full_page_writes") if visit.settings[name] == "off"]
    for name in off:
        yield problem(
            f"{name} is off: a crash of the server's machine can destroy the database",
            "turn it on, except on servers for tests",
            f"alter system set {name} = on",
            RELOAD,
        )
    if not off:
        yield ok("fsync and full_page_writes are on")


def synchronous_commit(visit: Visit) -> Iterator[Finding]:
    """Is a commit of this role on disk when it is confirmed, and is it confirmed at all?"""
    setting, role = visit.settings["synchronous_commit"], visit.settings["login"]
    if setting == "off":
        yield warning(
            f"synchronous_commit is off for role {role}: a crash of the server undoes what was committed last, so jobs "
            "that were done run again, and jobs that were added may be gone",
            "turn it on, unless that is what you chose",
            f"alter role {role} set synchronous_commit = on",
        )
    elif setting != "local" and visit.look("doctor_missing_standbys") != []:
        yield problem(
            "synchronous_standby_names asks for more standbys than are connected: no commit is ever confirmed",
            "start those standbys, or do without",
            "alter system set synchronous_standby_names = ''",
            RELOAD,
        )
    else:
        yield ok(f"synchronous_commit is {setting}")


def read_only(visit: Visit) -> Iterator[Finding]:
    """Can anything be written here?"""
    if visit.settings["standby"] == "true":
        yield note(
            "this is a standby: jobs can be looked at, neither added nor run",
            "name all hosts in the connection string of workers, with target_session_attrs=read-write",
        )
    elif visit.settings["default_transaction_read_only"] == "on":
        yield problem(
            "default_transaction_read_only is on: jobs can neither be added nor run",
            "turn it off for the role, or where it was set",
            f"alter role {visit.settings['login']} set default_transaction_read_only = off",
        )
    else:
        yield ok("the server takes writes")


def isolation(visit: Visit) -> Iterator[Finding]:
    """Do statements run at the level they are made for?"""
    level = visit.settings["default_transaction_isolation"]
    if level != "read committed":
        yield warning(
            f"default_transaction_isolation is {level!r}: claims and outcomes that meet fail, and are tried again",
            "let the role begin at read committed",
            f"alter role {visit.settings['login']} set default_transaction_isolation = 'read committed'",
        )
    else:
        yield ok("transactions begin at read committed")


def timeouts(visit: Visit) -> Iterator[Finding]:
    """Have statements time enough, and forgotten transactions not for ever?"""
    limit = int(visit.settings["statement_timeout"])
    if 0 < limit < SHORT:
        yield warning(
            f"statement_timeout is {limit} ms for role {visit.settings['login']}: a busy worker's statements, cleanup "
            "and stats are cut off",
            "give the role 30 seconds; workers have a limit of their own, 20 seconds",
            f"alter role {visit.settings['login']} set statement_timeout = '30s'",
        )
    if visit.settings["idle_in_transaction_session_timeout"] == "0":
        yield note(
            "idle_in_transaction_session_timeout is 0: a transaction that is forgotten keeps dead rows for ever",
            "set it, to more than a handler is idle in ctx.transaction()",
            f"alter database {visit.settings['database']} set idle_in_transaction_session_timeout = '10min'",
        )
    elif not 0 < limit < SHORT:
        yield ok("statements have time, idle transactions have an end")


def connections(visit: Visit) -> Iterator[Finding]:
    """Is there room for one more worker process?"""
    needed = visit.database.max_connections + 1
    rows = visit.look("doctor_connections")
    told = {whose: f"{used} of {most} connections of the {whose} are in use" for whose, most, used, _ in rows}
    tight = [(whose, mend) for whose, most, used, mend in rows if most - used < needed]
    for whose, mend in tight:
        yield warning(
            f"{told[whose]}; one more worker process takes up to {needed} (max_size, and one to listen)",
            "allow more (to the server, at its next start), use fewer, or put a pooler in between",
            mend,
        )
    if not tight:
        yield ok(f"{told['server']}, a worker process takes up to {needed}")


def notification_queue(visit: Visit) -> Iterator[Finding]:
    """Is there room for notifications? Where there is none, nothing can be added."""
    ((usage, pid, application, kill),) = visit.look("doctor_notification_queue")
    full = visit.thresholds.notification_queue
    if usage <= full:
        yield ok(f"{usage:.0%} of the queue of notifications is in use")
        return
    oldest = f": perhaps process {pid} ({application or 'without a name'}), the oldest" if pid else ""
    yield (problem if usage > FULL * full else warning)(
        f"{usage:.1%} of the queue of notifications is in use; when it is full, no job can be added",
        f"end the transaction of the session that listens and does not end it{oldest}",
        *([kill] if pid else []),
    )


def transaction_ids(visit: Visit) -> Iterator[Finding]:
    """Are old rows frozen in time? At two billion transactions the server stops taking writes."""
    ((oldest,),) = visit.look("doctor_transaction_ids")
    limit = visit.thresholds.transaction_ids
    if oldest <= limit:
        yield ok(f"the oldest rows were frozen {oldest:,} transactions ago")
        return
    yield (problem if oldest > FULL * limit else warning)(
        f"the oldest rows were frozen {oldest:,} transactions ago; at 2,000,000,000 the server takes no more writes",
        "end what keeps old transactions (old-transactions, prepared-transactions, replication-slots), then freeze",
        "vacuum (freeze)",
    )


def replication_slots(visit: Visit) -> Iterator[Finding]:
    """Is there a slot that nobody reads, and that keeps the log until the disk is full?"""
    found = visit.look("doctor_replication_slots")
    for name, kept, keeps_rows, mend in found:
        rows = " and dead rows" if keeps_rows else ""
        yield warning(
            f"nobody uses replication slot {name}, which keeps {size(kept or 0)} of the log{rows}",
            "start what reads it, or drop it",
            mend,
        )
    if not found:
        yield ok("no replication slot is left unused")


def standby_feedback(visit: Visit) -> Iterator[Finding]:
    """Do queries on standbys keep dead rows here?"""
    found = visit.look("doctor_standby_feedback", {"transactions": visit.thresholds.feedback})
    for name, transactions in found:
        yield warning(
            f"queries on standby {name} keep the dead rows of the last {transactions:,} transactions",
            "end the oldest query there, or turn hot_standby_feedback off there, which may cancel them",
        )
    if not found:
        yield ok("no query on a standby keeps dead rows")


def prepared_transactions(visit: Visit) -> Iterator[Finding]:
    """Is there a prepared transaction that nobody ends?"""
    old = visit.thresholds.old_transaction.total_seconds()
    found = visit.look("doctor_prepared_transactions", {"seconds": old})
    for gid, owner, seconds, mend in found:
        yield problem(
            f"prepared transaction {gid!r} of {owner} is {age(seconds)} old: it keeps its locks and dead rows, after a "
            "restart as well",
            "commit it or roll it back",
            mend,
        )
    if not found:
        yield ok("no prepared transaction is old")
