"""A mixed fleet: pools of Node's and of ours on one schema, each in a process of its own, and a record of what they do.

Every handler, in either language, writes to the table `attempts` when it begins an item of work and when it ends it, by
the database's clock. An item has a number; most jobs carry one, `{n, fail}`, a batch carries a list of them. One that
is to fail does so the first time.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from random import Random
from typing import Any

import attrs
from command_line import DEADLINE, environment
from plain_sql import Connection, connect, eventually

from graphile_worker_py import JobSpec, Queue
from interop import node
from interop.host import NodeWorker

# What is seen of a job is read from its row, so that nothing is lost on the way through a language. `live` is the
# claim that the handler works under: the rows of an attempt whose process was killed never end.
RECORDER = """
create table public.attempts (
    id bigint generated always as identity primary key,
    number integer not null,
    failed boolean not null,
    pool text not null,
    job bigint not null,
    attempt integer, holder text, claimed timestamptz, priority integer, run_at timestamptz, queue integer,
    began timestamptz not null default clock_timestamp(),
    ended timestamptz
);
create index on public.attempts (number);
create index on public.attempts (job);

create function public.begin_attempt(pool text, job bigint, numbers integer[], failing integer[]) returns integer[]
language sql as $$
    with begun as (
        insert into public.attempts (number, failed, pool, job, attempt, holder, claimed, priority, run_at, queue)
        select n, n = any ($4) and not exists (select from public.attempts as a where a.number = n and a.failed),
            $1, $2, j.attempts, j.locked_by, j.locked_at, j.priority, j.run_at, j.job_queue_id
        from unnest($3) as n left join graphile_worker._private_jobs as j on j.id = $2
        returning number, failed
    )
    select coalesce(array_agg(number) filter (where failed), '{}') from begun
$$;

create function public.end_attempt(pool text, job bigint) returns void language sql as $$
    update public.attempts as a set ended = clock_timestamp() where a.job = $2 and a.pool = $1 and a.ended is null
$$;

create function public.pass_the_gate() returns void language sql as 'select pg_advisory_xact_lock_shared(1)';
"""
SHUT, OPEN = "select pg_advisory_lock(1)", "select pg_advisory_unlock(1)"

RECORD = """(async () => {
    const items = [payload].flat();
    const numbers = items.map((item) => item.n);
    const failing = items.filter((item) => item.fail).map((item) => item.n);
    const begin = "select public.begin_attempt($1, $2, $3, $4) as refused";
    const { refused } = (await helpers.query(begin, [NAME, helpers.job.id, numbers, failing])).rows[0];
    await helpers.query("select public.end_attempt($1, $2)", [NAME, helpers.job.id]);
    const no = () => new Error(`refused ${refused}`);
    if (Array.isArray(payload)) return numbers.map((n) => (refused.includes(n) ? Promise.reject(no()) : n));
    if (refused.length) throw no();
})()"""
HOLD = """(async () => {
    await helpers.query("select public.begin_attempt($1, $2, $3, '{}')", [NAME, helpers.job.id, [payload.n]]);
    await helpers.query("select public.pass_the_gate()");
    await helpers.query("select public.end_attempt($1, $2)", [NAME, helpers.job.id]);
})()"""

QUEUES = 50
STREAK = 8  # jobs of one named queue in a row, so that some of them are added at the same time
ITEMS = 4  # of a batch

# Pools.


def run_node(worker: NodeWorker, name: str, *, holds: Sequence[str] = (), **options: Any) -> None:
    """Let a Node worker take part."""
    tasks = {"record": RECORD, **dict.fromkeys(holds, HOLD)}
    worker.run({task: body.replace("NAME", json.dumps(name)) for task, body in tasks.items()}, **options)


class PythonPool:
    """A pool of ours in a process of its own, as a context manager. `id`: what stands in locked_by of its jobs."""

    def __init__(self, name: str, database: str, *, holds: Sequence[str] = (), **options: Any) -> None:
        self.name = name
        given = {"name": name, "database": f"{database} application_name='{name}'", "holds": list(holds), **options}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(node.HERE / "fleet_pool.py"), json.dumps(given)],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.id = self._process.stdout.readline().strip()
        assert self.id, f"{name} did not start"

    def __enter__(self) -> PythonPool:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL if kind else signal.SIGTERM)
        self.end()

    def kill(self) -> None:
        """End it as kill -9 does."""
        self._process.kill()
        self.end()

    def end(self) -> None:
        """Wait until it has ended."""
        try:
            self._process.wait(DEADLINE)
        finally:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()


# Work.


@attrs.frozen
class Request:
    """One call of add_job, or one element of add_jobs: the items it carries, each with whether it is to fail once."""

    items: Mapping[int, bool]
    priority: int = 0
    queue: str | None = None
    key: str | None = None
    batch: bool = False

    @property
    def payload(self) -> Any:
        """Return the payload, which is the same in both languages."""
        items = [{"n": number, "fail": fail} for number, fail in self.items.items()]
        return items if self.batch else items[0]

    def for_python(self) -> JobSpec:
        """Return what our add_jobs takes."""
        return JobSpec("record", self.payload, queue_name=self.queue, job_key=self.key, priority=self.priority)

    def for_node(self) -> dict[str, Any]:
        """Return what addJobs of NodeWorker takes."""
        given = {"queueName": self.queue, "jobKey": self.key, "priority": self.priority}
        spec = {name: value for name, value in given.items() if value}
        return {"identifier": "record", "payload": f"({json.dumps(self.payload)})", **spec}


def requests(count: int, *, keyed: bool = True) -> list[Request]:
    """Return a day's mixture: plain ones, 50 named queues, keys, batches, and batches that merge under a key."""
    random = Random(count)  # noqa: S311 - no secret
    numbers = itertools.count(1)
    streaks = (queue for _ in itertools.count() for queue in [f"queue {random.randrange(QUEUES)}"] * STREAK)

    def items(how_many: int) -> dict[int, bool]:
        return {next(numbers): random.random() < 0.1 for _ in range(how_many)}

    def request() -> Request:
        kind = random.choices(["plain", "queued", "batch", "keyed", "merged"], [40, 30, 10, 10, 10])[0]
        key = f"{kind} {random.randrange(max(1, count // 50))}" if kind in ("keyed", "merged") and keyed else None
        batch = kind in ("batch", "merged")
        queue = next(streaks) if kind == "queued" else None
        priority = random.choice([-1, 0, 1])
        return Request(items(ITEMS if batch else 1), priority=priority, queue=queue, key=key, batch=batch)

    return [request() for _ in range(count)]


class Producers:
    """Adds requests from both languages at once. Those under keys come one after the other, from each side in turn.

    `added`: for each number, by the database's clock, when all could see its job.
    """

    def __init__(self, database: str, queue: Queue, nodes: Sequence[NodeWorker]) -> None:
        self._database = database
        self._queue = queue
        self._nodes = nodes
        self._errors: list[BaseException] = []
        self.added: dict[int, datetime] = {}

    def add(self, wanted: Sequence[Request], *, at_a_time: int = 20) -> None:
        """Add all of them."""
        plain = [request for request in wanted if request.key is None]
        chunks = [plain[start : start + at_a_time] for start in range(0, len(plain), at_a_time)]
        alone = [[request] for request in wanted if request.key is not None]
        shares = [chunks[0::2]], [chunks[1::2], alone]
        threads = [threading.Thread(target=self._add, args=args) for args in zip((False, True), shares, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _add(self, node_too: bool, lists: Sequence[Sequence[Sequence[Request]]]) -> None:
        try:
            with connect(self._database) as db:
                for turn, chunks in enumerate(itertools.zip_longest(*lists, fillvalue=())):
                    for chunk in filter(None, chunks):
                        sides: list[NodeWorker | None] = [*self._nodes] if node_too else [None]
                        if chunk[0].key is not None:
                            sides.append(None)
                        self._send(chunk, sides[turn % len(sides)])
                        at = db.execute("select clock_timestamp() as at").fetchone()["at"]
                        self.added.update(dict.fromkeys((n for request in chunk for n in request.items), at))
        except BaseException as error:
            self._errors.append(error)

    def _send(self, chunk: Sequence[Request], to: NodeWorker | None) -> None:
        if to is None:
            self._queue.add_jobs([request.for_python() for request in chunk])
        else:
            to.add_jobs([request.for_node() for request in chunk])


class Retries:
    """Lets what has failed be tried again at once, instead of after the delay; also what a key was taken from.

    `due`: when a job could be claimed again, by the run_at that it then had.
    """

    def __init__(self, db: Connection) -> None:
        self._db = db
        self.due: dict[tuple[int, datetime], datetime] = {}

    def until_all_is_done(self, *, seconds: float) -> None:
        """Return when no job is left."""
        eventually(self._none_left, seconds=seconds, every=0.1)

    def again(self) -> None:
        """Do it for those that have failed by now."""
        rows = self._db.execute(
            "select id, run_at from graphile_worker.reschedule_jobs(array("
            " select id from graphile_worker._private_jobs where last_error is not null and locked_at is null"
            " and (run_at > now() or not is_available)), run_at => now(), attempts => 1)"
        ).fetchall()
        if rows:
            at = self._db.execute("select clock_timestamp() as at").fetchone()["at"]
            self.due.update(((row["id"], row["run_at"]), at) for row in rows)

    def _none_left(self) -> bool:
        self.again()
        return not self._db.execute("select from graphile_worker._private_jobs limit 1").fetchall()


# What was done.


@attrs.frozen(kw_only=True)
class Attempt:
    """A row of the table: one item, begun once."""

    id: int
    number: int
    failed: bool
    pool: str
    job: int
    attempt: int | None
    holder: str | None
    claimed: datetime | None
    priority: int | None
    run_at: datetime | None
    queue: int | None
    began: datetime
    ended: datetime | None

    @property
    def place(self) -> Any:
        """Return what orders the jobs of a named queue."""
        return self.priority, str(self.run_at), self.job


def attempts(db: Connection) -> list[Attempt]:
    """Return all attempts in the order of their beginnings."""
    return [Attempt(**row) for row in db.execute("select * from public.attempts order by began, id").fetchall()]


def by_number(made: Iterable[Attempt]) -> dict[int, list[Attempt]]:
    """Return the attempts at each item."""
    found: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in made:
        found[attempt.number].append(attempt)
    return found


def by_queue(made: Iterable[Attempt]) -> dict[int, list[Attempt]]:
    """Return the attempts in each named queue."""
    found: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in made:
        if attempt.queue is not None:
            found[attempt.queue].append(attempt)
    return found


def overlaps(made: Iterable[Attempt], *, killed_at: datetime | None = None) -> Iterator[str]:
    """Say for which neighbours in a named queue the second began before the first had ended."""
    for line in by_queue(made).values():
        for first, second in itertools.pairwise(line):
            if (first.ended or killed_at or second.began) > second.began:
                yield f"{second.pool} began {second.place} at {second.began}, {first.pool} ended {first.place} later"


def overtakings(
    made: Iterable[Attempt], added: Mapping[int, datetime], due: Mapping[tuple[int, datetime], datetime]
) -> Iterator[str]:
    """Say which attempts in a named queue should have let others go first, which were ready when they were claimed.

    The order is that of priority, run_at and id; but Node's worker leaves the order of equal times open.
    """

    def ready(attempt: Attempt) -> datetime | None:
        return added.get(attempt.number) if attempt.attempt == 1 else due.get((attempt.job, attempt.run_at))

    for line in by_queue(made).values():
        for early, late in itertools.combinations(line, 2):
            known = 3 if early.pool.startswith("python") else 2
            since = ready(late)
            if since and since < early.claimed and late.place[:known] < early.place[:known]:
                yield f"{early.pool} claimed {early.place} at {early.claimed}, {late.place} was ready since {since}"
