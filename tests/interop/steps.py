"""The steps of a sequence, as hypothesis makes them: calls of the functions, what workers do, and the passing of time.

A step is one statement that returns one text. SIDE stands for the schema and SEEN for the functions of replay.sql, so
that the same statement runs on both sides. What hypothesis prints of a failing sequence can be pasted into psql.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from hypothesis import strategies as st


class Step(NamedTuple):
    """A statement, and the errors it may end with: SQLSTATEs, with the constraint or column where there is one."""

    statement: str
    mistakes: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return self.statement


class Value(NamedTuple):
    """An argument as SQL; None leaves it out. The mistake is the error it leads to, alone and where it is looked at."""

    text: str | None = None
    mistake: str | None = None


Values = st.SearchStrategy[Value]

LEFT_OUT = Value()
NULL = Value("null")
TOO_LARGE = "22003"
NOT_FOR_JSONB = frozenset(("22P02", "22P05", TOO_LARGE))


def among(usual: list[Value], unusual: list[Value], mistaken: list[Value]) -> Values:
    """Draw mostly the usual, so that sequences get somewhere; each of the others often enough, in 2,000 of them."""
    return st.sampled_from(usual * (90 // len(usual)) + unusual * max(1, 12 // max(1, len(unusual))) + mistaken)


def texts(*literals: str) -> list[Value]:
    return [Value(quoted(literal)) for literal in literals]


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def integers(*numbers: int, mistake: str | None = None) -> list[Value]:
    return [Value(str(number), mistake) for number in numbers]


IDENTIFIERS = among(
    texts("a", "b"),
    [*texts(""), Value("repeat('雪', 128)")],
    [Value("null", "23502 identifier"), Value("repeat('a', 129)", "23514 tasks_identifier_check")],
)
QUEUES = among(
    [LEFT_OUT, *texts("q", "r")],
    [NULL, *texts(""), Value("repeat('雪', 128)")],
    [Value("repeat('q', 129)", "23514 job_queues_queue_name_check")],
)
KEYS = among(
    [*texts("k", "l"), LEFT_OUT],
    [NULL, *texts("m", " k"), Value("repeat('雪', 512)")],
    [Value("''", "23514 jobs_key_check"), Value("repeat('k', 513)", "23514 jobs_key_check")],
)
MODES = among(
    [LEFT_OUT, *texts("replace", "preserve_run_at", "unsafe_dedupe")],
    [NULL],
    [Value(quoted(mode), "GWBKM") for mode in ("nonsense", "", "REPLACE", "replace ")],
)
MOMENTS = among(
    [LEFT_OUT, Value("now() + interval '1 hour'")],
    [NULL, Value("now()"), Value("now() - interval '1 day'"), *texts("infinity", "-infinity")],
    [],
)
MAX_ATTEMPTS = among(
    [LEFT_OUT, *integers(1, 2)],
    [NULL, *integers(25, 32767)],
    [
        *integers(0, -1, mistake="23514 jobs_max_attempts_check"),
        *integers(32768, -32769, 2147483647, mistake=TOO_LARGE),
    ],
)
ATTEMPTS = among([LEFT_OUT, *integers(0, 1)], [NULL, *integers(25, -1, 32767)], integers(32768, mistake=TOO_LARGE))
PRIORITIES = among(
    [LEFT_OUT, *integers(3)], [NULL, *integers(0, -5, 32767, -32768)], integers(32768, -32769, mistake=TOO_LARGE)
)
FLAGS = among(
    [LEFT_OUT, *texts("{a}")],
    [NULL, *texts("{}", "{b,a,b}", '{""}', "{{a,b},{c,d}}")],
    [Value(text, "22023") for text in ("array['a', null]", "array[null]")],
)

# Lists are joined through jsonb, which rewrites numbers and objects, and cannot hold all that json can.
LISTS = [
    "[ 1e2, 1.10, -0, -0.0, 1E-7, 12345678901234567890123 ]", '[{"b": 1,  "a": 2, "a": 3}]', " [ ] ", "[[2], null]",
    '["\\u96ea", "雪", "\\/"]',
]  # fmt: skip
SCALARS = ["null", "true", "0", "1.50", '"x"', "{}", '{"b": 1,  "a": 2, "a": 3}']
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
).map(lambda value: Value(quoted(json.dumps(value)), "22P05" if "\\u0000" in json.dumps(value) else None))
fixed = among(
    [LEFT_OUT, *texts("[1]", '{"a":1}')],
    [NULL, *texts(*LISTS, *SCALARS)],
    [
        Value(quoted('["\\u0000"]'), "22P05"),
        Value(quoted('["\\ud800"]'), "22P02"),
        Value(quoted("[1e131072]"), TOO_LARGE),
    ],
)
PAYLOADS = st.integers(0, 15).flatmap(lambda n: anything if n == 15 else fixed)

Spec = tuple[Value, ...]
SPECS = st.tuples(IDENTIFIERS, PAYLOADS, QUEUES, MOMENTS, MAX_ATTEMPTS, KEYS, PRIORITIES, FLAGS)
TYPES = ("text", "json", "text", "timestamptz", "smallint", "text", "smallint", "text[]")
NAMES = ("identifier", "payload", "queue_name", "run_at", "max_attempts", "job_key", "priority", "flags")


def mistakes(values: Iterable[Value]) -> frozenset[str]:
    return frozenset(value.mistake for value in values if value.mistake)


def spec_mistakes(spec: Spec) -> frozenset[str]:
    """Return the mistakes of a spec, among them those of the list it may be joined to."""
    keyed = spec[NAMES.index("job_key")].text not in (None, "null")
    return mistakes(spec) | (NOT_FOR_JSONB if keyed else frozenset())


def named(names: tuple[str, ...], values: Spec) -> str:
    return ", ".join(f"{name} => {value.text}" for name, value in zip(names, values, strict=True) if value.text)


def rows(call: str, order: str = "(j).id") -> str:
    """Tell the rows a function returns; in the order it returns them where that is of interest."""
    numbered = f"(select row_number() over (), j from SIDE.{call} as j) as numbered (n, j)"  # noqa: S608
    return f"select string_agg(SEEN.job(j), e'\\n' order by {order}) from {numbered}"  # noqa: S608


def add_job(drawn: tuple[Spec, Value]) -> Step:
    spec, mode = drawn
    mistaken = spec_mistakes(spec)
    if spec[NAMES.index("job_key")].text not in (None, "null"):
        mistaken |= mistakes((mode,))
    return Step(rows(f"add_job({named((*NAMES, 'job_key_mode'), (*spec, mode))})"), mistaken)


def add_jobs(drawn: tuple[list[Spec | None], str]) -> Step:
    specs, preserve = drawn
    keys = [key for spec in specs if spec and (key := spec[NAMES.index("job_key")].text)]
    mistaken = frozenset(("21000",) if len(keys) > len(set(keys)) else ())
    mistaken |= mistakes((Value("null", "23502 identifier"),)) if None in specs else frozenset()
    mistaken = mistaken.union(*(spec_mistakes(spec) for spec in specs if spec))
    written = ", ".join(
        "row({})".format(", ".join(f"cast({v.text or 'null'} as {kind})" for v, kind in zip(spec, TYPES, strict=True)))
        if spec
        else "null"
        for spec in specs
    )
    return Step(rows(f"add_jobs(array[{written}]::SIDE.job_spec[]{preserve})", "n"), mistaken)


PRESERVE = st.sampled_from(["", ", true", ", job_key_preserve_run_at => true", ", false", ", null"])
adding = st.tuples(SPECS, MODES).map(add_job)
adding_many = st.tuples(
    st.lists(st.integers(0, 20).flatmap(lambda n: st.none() if n == 20 else SPECS), max_size=4), PRESERVE
).map(add_jobs)
adding_none = PRESERVE.map(lambda preserve: Step(rows(f"add_jobs(null{preserve})", "n")))

NTH = st.integers(0, 11)
ID = st.sampled_from([f"SEEN.{which}({n})" for n in range(8) for which in ("nth", "running")] + ["null", "99", "-1"])
IDS = st.integers(0, 15).flatmap(
    lambda n: (
        st.sampled_from(["null", "'{}'"])
        if n == 15
        else st.lists(ID, min_size=1, max_size=3).map(lambda ids: f"array[{', '.join(ids)}]::bigint[]")
    )
)
RESCHEDULED = ("run_at", "priority", "attempts", "max_attempts")

removing = KEYS.map(lambda key: Step(rows(f"remove_job({key.text or quoted('k')})")))
completing = IDS.map(lambda ids: Step(rows(f"complete_jobs({ids})")))
failing_for_good = st.tuples(IDS, st.sampled_from(["", ", null", ", 'no'", ", ''"])).map(
    lambda drawn: Step(rows(f"permanently_fail_jobs({''.join(drawn)})"))
)
rescheduling = st.tuples(IDS, st.tuples(MOMENTS, PRIORITIES, ATTEMPTS, MAX_ATTEMPTS)).map(
    lambda drawn: Step(
        rows(f"reschedule_jobs({', '.join(filter(None, [drawn[0], named(RESCHEDULED, drawn[1])]))})"),
        mistakes(drawn[1]),
    )
)
unlocking = st.sampled_from(["'{v}'", "'{w}'", "'{v,w}'", "'{}'", "null", "array['v', null]"]).map(
    lambda workers: Step(f"select SIDE.force_unlock_workers({workers})::text")
)


def with_queue(job: str, queue: str) -> str:
    """Change a job and then its queue, the way workers do."""
    return (
        f"with j as ({job} returning id, job_queue_id), q as (update SIDE._private_job_queues as q set {queue} from j"  # noqa: S608
        " where q.id = j.job_queue_id) select string_agg(id::text, ' ') from j"
    )


def taking(drawn: tuple[int, str, str]) -> Step:
    """Lock one of the jobs that may be run, now or a while ago."""
    number, worker, ago = drawn
    lock = f"locked_at = now() - interval '{ago}', locked_by = '{worker}'"
    change = f"update SIDE._private_jobs set {lock}, attempts = attempts + 1 where id = SEEN.waiting({number})"  # noqa: S608
    return Step(with_queue(change, lock))


def letting_go(drawn: tuple[int, str]) -> Step:
    """Be done with one of the jobs that are locked: it has failed, is given back, or has succeeded."""
    number, change = drawn
    return Step(with_queue(f"{change} where id = SEEN.running({number})", "locked_at = null, locked_by = null"))


FREE = "update SIDE._private_jobs set locked_at = null, locked_by = null"
FAIL = "last_error = 'oops', run_at = greatest(now(), run_at) + interval '2.7 s'"
OUTCOMES = [
    f"{FREE}, {FAIL}",
    f"{FREE}, {FAIL}, payload = '[1]'",
    f"{FREE}, attempts = greatest(0, attempts - 1)",
    "delete from SIDE._private_jobs",
]


def trying(number: int) -> Step:
    """Take one of the jobs that may be run, and fail at once."""
    change = f"update SIDE._private_jobs set {FAIL}, attempts = attempts + 1 where id = SEEN.waiting({number})"  # noqa: S608
    return Step(f"{change} returning id::text")


TIMES = ("run_at", "created_at", "updated_at", "locked_at")


def passing(interval: str) -> Step:
    """Let time pass: all that has happened, and all that is to come, moves into the past."""
    moved = ", ".join(f"{name} = {name} - interval '{interval}'" for name in TIMES)
    return Step(
        f"with j as (update SIDE._private_jobs set {moved}), q as (update SIDE._private_job_queues"  # noqa: S608
        f" set locked_at = locked_at - interval '{interval}' where locked_at is not null) select null::text"
    )


COLUMNS = (
    "id, queue_name, task_identifier, priority, SEEN.since(run_at), attempts, max_attempts, last_error,"
    " SEEN.since(created_at), SEEN.since(updated_at), key, SEEN.since(locked_at), locked_by, revision, flags"
)
looking = st.just(Step(f"select string_agg(row({COLUMNS})::text, e'\\n' order by id) from SIDE.jobs"))  # noqa: S608

EDGES = ["4:00:00", "4:00:00.000001"]  # a lock is worth nothing after four hours
WEIGHTS = {
    adding: 8,
    adding_many: 5,
    adding_none: 1,
    removing: 2,
    completing: 2,
    failing_for_good: 2,
    rescheduling: 2,
    unlocking: 1,
    st.tuples(NTH, st.sampled_from("vw"), st.sampled_from(["0:00"] * 4 + EDGES)).map(taking): 5,
    st.tuples(NTH, st.sampled_from(OUTCOMES)).map(letting_go): 4,
    NTH.map(trying): 4,
    st.sampled_from(["1 second", *EDGES, "5 hours"]).map(passing): 4,
    looking: 1,
}
# Not one_of, which counts equal branches once.
STEPS = st.sampled_from([step for step, weight in WEIGHTS.items() for _ in range(weight)]).flatmap(lambda step: step)
SEQUENCES = st.integers(1, 40).flatmap(lambda length: st.lists(STEPS, min_size=length, max_size=length))
