"""The schema: whether it is all there, to whom it belongs, what this role may, and which numbers run out."""

from __future__ import annotations

from collections.abc import Iterator

from graphile_worker_py import migrate
from graphile_worker_py.doctor.findings import FULL, Finding, listed, note, ok, problem, warning
from graphile_worker_py.doctor.visit import Unseen, Visit
from graphile_worker_py.errors import MigrationError


def ledger(visit: Visit) -> Iterator[Finding]:
    """Is the schema installed, in a version that we know?"""
    newest = _newest(visit)
    if isinstance(newest, MigrationError):
        what, _, do = str(newest).rpartition(": ")
        yield problem(what, do)
        return
    if newest < migrate.LATEST:
        yield note(
            f"the schema is at migration {newest}, {migrate.LATEST} is the newest: each add uses up an id of its task",
            "run graphile-worker-py migrate",
        )
    elif newest > migrate.LATEST:
        yield note(
            f"the schema is at migration {newest}, this version knows {migrate.LATEST}; it is not marked as breaking",
            "look for a newer graphile-worker-py",
        )
    else:
        yield ok(f"migration {newest}, the newest")


def _newest(visit: Visit) -> int | MigrationError:
    with visit.limited():
        try:
            return migrate.check(visit.database, visit.connection)
        except MigrationError as error:
            return error


def own_tables(visit: Visit) -> Iterator[Finding]:
    """Are our own tables there, beside Node's?"""
    with visit.limited():
        newest, wanted = migrate.own_state(visit.database, visit.connection)
    if newest == wanted:
        yield ok(f"our own tables are there ({newest})")
    elif newest is None or newest < wanted:
        yield warning(
            f"our own tables are missing, or not all there ({newest or 0} of {wanted}): the jobs of a worker that dies "
            "wait for four hours, and results, history, limits and progress are not to be had",
            "run graphile-worker-py migrate, as the owner of the schema",
        )
    else:
        yield note(f"our own tables are newer than this version ({newest}, {wanted} is known)", "upgrade here too")


def owners(visit: Visit) -> Iterator[Finding]:
    """Does all of it belong to one role?"""
    found = visit.look("doctor_owners")
    if not found:
        yield ok("all in the schema belongs to one role")
        return
    others = listed([f"{name} (to {owner})" for name, owner, *_ in found])
    yield warning(
        f"not all in the schema belongs to {found[0][2]}: {others}; row security, and who may migrate, go by the owner",
        "give it to one role, as a superuser",
        *[mend for *_, mend in found],
    )


def rights(visit: Visit) -> Iterator[Finding]:
    """May this role do what a worker does?"""
    found = visit.look("doctor_rights")
    if not found:
        yield ok(f"role {visit.settings['role']} may do all that a worker does")
        return
    role, lacks = visit.settings["role"], listed([what for what, _ in found], most=3)
    if any(what.endswith("insert, update, delete on _private_jobs") for what, _ in found):
        yield note(
            f"role {role} can at most look: to run a worker it lacks {lacks}",
            f"make it one, if it is to be one: graphile-worker-py roles --grant worker={role}",
        )
    else:
        yield warning(
            f"role {role} cannot run a worker, it lacks {lacks}",
            f"grant that, or what all workers need: graphile-worker-py roles --grant worker={role}",
            *[mend for _, mend in found],
        )


def row_security(visit: Visit) -> Iterator[Finding]:
    """Does this role see nothing, and get no error for it?"""
    if not visit.hidden:
        yield ok("row security hides nothing that this role may ask for")
        return
    yield problem(
        f"row security hides the rows of {listed(list(visit.hidden))} from role {visit.settings['role']}, which may "
        "ask for them: it gets no error, it sees an empty queue",
        "connect as the owner of the schema, or as a role that graphile-worker-py roles has made, or give it a policy",
        *visit.hidden.values(),
    )


def visibility(visit: Visit) -> Iterator[Finding]:
    """Does this role see what others do?"""
    ((sees, mend),) = visit.look("doctor_visibility")
    if sees:
        yield ok("this role sees what all sessions do")
    else:
        yield note(
            f"role {visit.settings['role']} does not see what sessions of others do: old transactions may be missed",
            "let it, or look as a role that does",
            mend,
        )


def indexes(visit: Visit) -> Iterator[Finding]:
    """Are the indexes there, and usable?"""
    found = visit.look("doctor_indexes")
    for name, is_there, mend in found:
        if is_there:
            yield warning(f"index {name} is not usable, as a failed build leaves it", "mend or drop it", mend)
        else:
            yield warning(
                f"index {name} is missing: claims or adds read the whole table",
                "make it anew, as graphile-worker-py migrate --sql prints it",
            )
    if not found:
        yield ok("all indexes are there")


def identities(visit: Visit) -> Iterator[Finding]:
    """Are there numbers left for new jobs, tasks and queues?"""
    found = visit.look("doctor_identities")
    if found and all(used is None for *_, used, _ in found):
        raise Unseen("this role may not see how far the numbers are: look as the owner of the schema")
    limit = visit.thresholds.identities
    worst = 0.0
    for table, column, kind, last, used, mend in found:
        worst = max(worst, used or 0.0)
        if used is None or used <= limit:
            continue
        yield (problem if used > FULL * limit else warning)(
            f"{used:.0%} of the {kind} numbers of {table}.{column} are used up, the last is {last:,}; after the end "
            "nothing can be added",
            "go on at the lowest number, which leaves as many as there ever were",
            mend,
        )
    if worst <= limit:
        yield ok(f"at most {worst:.1%} of the numbers of a column are used")
