"""Finding: what a check of the doctor has to say; and from when on a figure is one to speak of."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, get_args

import attrs

Level = Literal["ok", "note", "warning", "problem"]
LEVELS: tuple[Level, ...] = get_args(Level)

SEVERAL = 5  # of a kind are named, the rest is counted


@attrs.frozen(kw_only=True)
class Finding:
    """What one check has found: `what` is so, `do` that; `sql` are statements to paste for it, if there are.

    check: its name, as `skip` takes it. level: "ok"; "note", good to know or to do; "warning", hurts already or soon;
    "problem", jobs are lost, or not run, or will be.
    """

    check: str = ""
    level: Level
    what: str
    do: str = ""
    sql: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Thresholds:
    """From when on something is found; what is six times as old, or three times as full, is a problem.

    old_transaction: age of a transaction that keeps dead rows. feedback: transactions that a standby holds back.
    dead_rows, bloat_bytes: in one table, in one index. identities, notification_queue: used shares, 0 to 1.
    transaction_ids: age of the oldest rows that are not frozen. waiting: of a ready job. locked: by nobody we know.
    clock_skew: between this host and the server.
    """

    old_transaction: timedelta = timedelta(minutes=10)
    feedback: int = 1_000_000
    dead_rows: int = 10_000
    bloat_bytes: int = 16_000_000
    identities: float = 0.3
    notification_queue: float = 0.1
    transaction_ids: int = 500_000_000
    waiting: timedelta = timedelta(minutes=10)
    locked: timedelta = timedelta(hours=1)
    clock_skew: timedelta = timedelta(seconds=2)


OLD = 6  # times the age from which on it is a warning: a problem
FULL = 3  # the same for shares


def ok(what: str) -> Finding:
    """Return a finding of nothing."""
    return Finding(level="ok", what=what)


def note(what: str, do: str, *sql: str) -> Finding:
    """Return a finding that is good to know."""
    return Finding(level="note", what=what, do=do, sql=sql)


def warning(what: str, do: str, *sql: str) -> Finding:
    """Return a finding of what hurts already or soon."""
    return Finding(level="warning", what=what, do=do, sql=sql)


def problem(what: str, do: str, *sql: str) -> Finding:
    """Return a finding of what makes the exit code 1."""
    return Finding(level="problem", what=what, do=do, sql=sql)


def age(seconds: float) -> str:
    """Return a time in words, such as 45 s, 12 min, 3 h or 9 d."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def listed(names: list[str], *, most: int = SEVERAL) -> str:
    """Return names as a list in a sentence, the first few of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
