"""The statements on a real PostgreSQL against a model in plain Python: after every step both hold the same.

Hypothesis makes the steps and, where the two differ, looks for the fewest that do. MODEL_EXAMPLES asks for more
examples of fifty steps than the 200, MODEL_SEED for others.

The time is the model's own. No draw depends on what is stored, for which of tied jobs without a queue are claimed is
not promised: a rule picks from what is there, if there is anything.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Collection, Iterator
from datetime import timedelta
from typing import Any

import attrs
import model_draws as drawn
import psycopg
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from model import STALE, Asked, Claims, Lock, Model, Row, Spec, Way, columns, in_order
from model_draws import HOLDERS, TICK, some
from model_tables import BEGIN, Tables, shown

from graphile_worker_py import Job, JobSpec

EXAMPLES_IN_ALL = int(os.environ.get("MODEL_EXAMPLES", "200"))
SEED = int(os.environ.get("MODEL_SEED", "0"))
PARTS = 4
IN_A_PART = -(-EXAMPLES_IN_ALL // PARTS)

WITHIN = timedelta(hours=2)
EVERYTHING = Asked(count=4, run_length=2, tasks=["a", "b"])


def other(holder: str) -> str:
    return HOLDERS[holder == HOLDERS[0]]


class Machine(RuleBasedStateMachine):
    """Two worker pools, their memory of what they hold, and those who add and administer jobs."""

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        self.tables = tables
        self.queue = tables.queue
        self.run = tables.run
        self.model = Model(BEGIN)
        self.held: dict[str, dict[int, Job]] = {holder: {} for holder in HOLDERS}
        self.queue_ids: dict[str, int] = {}
        tables.clear()
        for holder in HOLDERS:
            self.hear(holder)

    # What holds at any time.

    def look(self) -> None:
        """Compare what is stored with the model, and let a moment pass."""
        self.model.now += TICK
        rows = self.tables.look(self.model.now)
        stored = [(*row[:14], tuple(sorted(row[14])), row[15]) for row in rows if row[0] is not None]
        expected = [(*columns(row), row.is_available) for _, row in sorted(self.model.rows.items())]
        assert stored == expected
        locks = {row[16]: row[18] and Lock(*row[18:]) for row in rows if row[16] is not None}
        assert locks == self.model.queues
        self.queue_ids = {row[16]: row[17] for row in rows if row[16] is not None}

    @invariant()
    def both_are_the_same(self) -> None:
        self.look()

    @invariant()
    def whoever_holds_a_job_knows_and_has_its_queue(self) -> None:
        """But for locks so old that they are worth nothing."""
        model, busy = self.model, set()
        for row in model.rows.values():
            if row.locked_at is not None and row.locked_at >= model.now - STALE:
                assert self.held[row.locked_by][row.id].locked_at == row.locked_at
                if row.queue_name is not None:
                    assert model.queues[row.queue_name] == Lock(row.locked_at, row.locked_by)
                    busy.add(row.queue_name)
        assert busy == {name for name, lock in model.queues.items() if lock and lock.at >= model.now - STALE}

    # Adding.

    @initialize(asked=st.lists(drawn.specs_and_keys, min_size=4, max_size=8))
    def begin(self, asked: list[tuple[Spec, str | None]]) -> None:
        self.add_many(asked, preserve=False)

    @rule(spec=drawn.specs)
    def add(self, spec: Spec) -> None:
        job = self.queue.add_job(**spec)
        assert shown(job) == columns(self.model.add(spec, mode="replace", id=job.id))

    @rule(spec=drawn.specs, key=drawn.keys, mode=drawn.modes)
    def add_under_a_key(self, spec: Spec, key: str, mode: str | None) -> None:
        spec = {**spec, "job_key": key}
        job = self.queue.add_job(**spec, job_key_mode=mode)
        assert shown(job) == columns(self.model.add(spec, mode=mode or "replace", id=job.id))

    @rule(asked=st.lists(drawn.specs_and_keys, min_size=1, max_size=4), preserve=st.booleans())
    def add_many(self, asked: list[tuple[Spec, str | None]], preserve: bool) -> None:
        several = [{**spec, "job_key": key} for spec, key in asked]
        jobs = self.queue.add_jobs([JobSpec(**spec) for spec in several], job_key_preserve_run_at=preserve)
        mode = "preserve_run_at" if preserve else "replace"
        for spec, job in zip(several, jobs, strict=True):
            row = self.model.add(spec, mode=mode, id=job.id)
            assert shown(job) == columns(row)

    # Hypothesis draws all rules equally often: under another name, a rule is drawn twice as often.
    add_more, add_more_under_a_key, add_many_more = add, add_under_a_key, add_many

    # Claiming.

    def claim(self, holder: str, asked: Asked) -> list[Job]:
        """Claim as a worker does, which passes over the queues it is in itself."""
        own = {job.job_queue_id for job in self.held[holder].values() if job.job_queue_id is not None}
        busy = own | {self.queue_ids[name] for name in asked.busy if name in self.queue_ids}
        names = [name for name, id in self.queue_ids.items() if id in busy]
        told, jobs = self._claimed(holder, asked, list(busy))
        asked = attrs.evolve(asked, busy=names)
        ids = [job.id for job in jobs]
        possible = [[row.id for row in rows] for rows in self.model.claimable(asked)]
        assert ids in possible
        assert [shown(job) for job in jobs] == [columns(row) for row in self.model.claim(ids, holder)]
        due_in = None if jobs else self.model.next_due(asked, WITHIN)
        queued = any(job.job_queue_id is not None for job in jobs)
        seconds = {"seconds": 0, "queue_seconds": 0}
        assert told == {"due_in": due_in, **seconds, "stuck": [], "jobs": len(jobs), "queued": queued}
        self.tables.claimed += len(jobs)
        return jobs

    def _claimed(self, holder: str, asked: Asked, busy: list[int]) -> tuple[dict[str, Any], list[Job]]:
        parameters = {
            "tasks": list(asked.tasks),
            "forbidden": list(asked.forbidden),
            "holder": holder,
            "count": asked.count,
            "run_length": asked.run_length,
            "with_queues": asked.with_queues,
            "busy": busy,
            "priorities": asked.lanes and list(asked.lanes),
            "since": asked.lanes and list(asked.lanes.values()),
            "last_priority": None,
            "last_run_at": None,
            "within": WITHIN.total_seconds(),
        }
        rows = self.queue.database.begin_by_index("claim_jobs", parameters)().fetchall()
        return json.loads(rows[0][4]), sorted((Job(*row) for row in rows[1:]), key=in_order)

    @rule(holder=drawn.holders, asked=drawn.claims_asked)
    def take(self, holder: str, asked: Asked) -> None:
        self.held[holder].update({job.id: job for job in self.claim(holder, asked)})

    take_more = take

    @rule(holder=drawn.holders, asked=drawn.lanes_asked)
    def take_without_queues(self, holder: str, asked: Asked) -> None:
        self.held[holder].update({job.id: job for job in self.claim(holder, asked)})

    @rule(holder=drawn.holders, asked=drawn.claims_asked)
    def lose_the_answer_to_a_claim(self, holder: str, asked: Asked) -> None:
        self.claim(holder, asked)
        self.look()
        held = self.held[holder]
        since = list({job.locked_at for job in held.values()})
        returned = self.run("return_strays", {"holder": holder, "held": list(held), "since": since})
        strays = {
            row.id: row.locked_at
            for row in self.model.rows.values()
            if row.locked_by == holder and (row.id not in held or held[row.id].locked_at != row.locked_at)
        }
        expected = self.model.give_back(strays, Claims(holder, set(strays.values())), free_queues=True)
        assert {row[0] for row in returned} == expected

    # Writing what became of jobs.

    def some_held(self, holder: str, picked: int) -> tuple[str, list[Job]]:
        """Return who believes to hold jobs, this one or else the other, and some of them; or let it claim."""
        for name in (holder, other(holder)):
            if self.held[name]:
                return name, some(list(self.held[name].values()), picked)
        self.take(holder, EVERYTHING)
        return holder, []

    def wrote(self, holder: str, jobs: list[Job], guard: str) -> Claims:
        """Return by what the holder, or one that is not, writes of these; the holder then forgets them."""
        since = {job.locked_at for job in jobs}
        if guard == "another holder":
            return Claims(other(holder), since)
        if guard == "an earlier claim":
            return Claims(holder, {at - TICK / 2 for at in since})
        for job in jobs:
            del self.held[holder][job.id]
        return Claims(holder, since)

    def leaving(self, holder: str, jobs: list[Job]) -> list[int]:
        """Return those of the jobs that are the last of a queue's run."""
        last = {(job.job_queue_id, job.locked_at): job.id for job in jobs if job.job_queue_id is not None}
        ids = [job.id for job in jobs]
        behind = {(job.job_queue_id, job.locked_at) for job in self.held[holder].values() if job.id not in ids}
        return [id for run, id in last.items() if run not in behind]

    @rule(holder=drawn.holders, picked=drawn.picks, guard=drawn.guards)
    def finish(self, holder: str, picked: int, guard: str) -> None:
        holder, jobs = self.some_held(holder, picked)
        if jobs:
            freeing, ids = self.leaving(holder, jobs), [job.id for job in jobs]
            claims = self.wrote(holder, jobs, guard)
            missing = self.run("finish_jobs", {**parameters(claims), "ids": ids, "freeing": freeing})
            assert {row[0] for row in missing} == self.model.finish(ids, claims, freeing)

    @rule(holder=drawn.holders, picked=drawn.picks, guard=drawn.guards, keeping=st.integers(0, 7), goes_on=drawn.ways)
    def fail(self, holder: str, picked: int, guard: str, keeping: int, goes_on: list[str]) -> None:
        holder, jobs = self.some_held(holder, picked)
        if jobs:
            freeing = self.leaving(holder, jobs)
            kept = {
                j.id: some(list(range(1, len(j.payload) + 1)), keeping) for j in jobs if isinstance(j.payload, list)
            }
            ways = {job.id: self.way(job, how) for job, how in zip(jobs, itertools.cycle(goes_on), strict=False)}
            claims = self.wrote(holder, jobs, guard)
            self.write_failures(claims, jobs, freeing=freeing, kept=kept if keeping else {}, ways=ways)

    def way(self, job: Job, how: str) -> Way:
        keyed = job.key is not None
        return {
            "node's": Way(keyed=keyed),
            "delay": Way(delay=90.0, keyed=keyed),
            "moment": Way(delay=0.0, run_at=self.model.now + timedelta(hours=1), keyed=keyed),
            "final": Way(delay=0.0, final=True, keyed=keyed),
            "snooze": Way(delay=3.0, snoozed=True, keyed=keyed),
        }[how]

    def write_failures(
        self,
        claims: Claims,
        jobs: list[Job],
        *,
        freeing: list[int],
        kept: dict[int, list[int]],
        ways: dict[int, Way],
    ) -> dict[int, bool | None]:
        errors = {job.id: f"oops {job.attempts}" for job in jobs}
        texts = [f"{{{','.join(map(str, kept[id]))}}}" if id in kept else None for id in errors]
        told: dict[str, Any] = {"ids": list(errors), "errors": list(errors.values()), "kept": texts, "freeing": freeing}
        names = {"delays": "delay", "run_ats": "run_at", "final": "final", "snoozed": "snoozed", "keyed": "keyed"}
        told |= {name: [getattr(ways[job.id], field) for job in jobs if ways] for name, field in names.items()}
        rows = {id: tuple(told) for id, *told in self.run("fail_jobs", {**parameters(claims), **told})}
        assert rows == self.model.fail(errors, claims, freeing=freeing, kept=kept, ways=ways)
        return {id: final for id, (final, _) in rows.items()}

    @rule(holder=drawn.holders, picked=drawn.picks, guard=drawn.guards, begun=st.booleans(), wait=st.booleans())
    def give_back(self, holder: str, picked: int, guard: str, begun: bool, wait: bool) -> None:
        """Give back a run of jobs, but for the first if that was begun: with it the queue is left later."""
        holder, some_jobs = self.some_held(holder, picked)
        for first in some_jobs[:1]:
            run = (first.job_queue_id, first.locked_at)
            jobs = [j for j in self.held[holder].values() if (j.job_queue_id, j.locked_at) == run]
            begun = begun and len(jobs) > 1
            jobs, free_queues = (jobs[1:], False) if begun else (jobs, True)
            ids, claims = [job.id for job in jobs], self.wrote(holder, jobs, guard)
            options = {"free_queues": free_queues, "wait": wait}
            returned = self.run("return_jobs", {**parameters(claims), "ids": ids, **options})
            assert {row[0] for row in returned} == self.model.give_back(ids, claims, free_queues=free_queues)

    @rule(holder=drawn.holders, picked=drawn.picks, guard=drawn.guards, commits=st.booleans())
    def complete_in_a_transaction(self, holder: str, picked: int, guard: str, commits: bool) -> None:
        """Then the row tells: a job that is still there has failed, of one that is gone only the queue is left."""
        holder, some_jobs = self.some_held(holder, picked)
        for job in some_jobs[:1]:
            freeing, claims = self.leaving(holder, [job]), self.wrote(holder, [job], guard)
            with self.queue.database.connection() as connection, connection.transaction():
                claim = {"id": job.id, "holder": claims.holder, "since": min(claims.since)}
                found = self.run("complete_held_job", claim, connection=connection)
                assert len(found) == len(self.model.held([job.id], claims))
                if not commits:
                    raise psycopg.Rollback
            if commits:
                self.model.finish([job.id], claims, ())
            self.look()
            self.clean_up(["GC_JOB_QUEUES"])  # the queue is still locked
            final = self.write_failures(claims, [job], freeing=freeing, kept={}, ways={})
            if final.get(job.id) is None and freeing:
                self.run("free_queues", {**parameters(claims), "queues": [job.job_queue_id]})
                self.model.free_queues({job.queue_name}, claims)

    # Time, and who does not live to see it.

    @rule(seconds=st.sampled_from([3, 30, 3600, 4 * 3600]))
    def let_time_pass(self, seconds: int) -> None:
        self.model.now += timedelta(seconds=seconds)

    def after(self, pause: timedelta) -> None:
        """Make what comes next in this step happen later."""
        if pause:
            self.model.now += pause
            self.look()

    @rule(holder=drawn.holders)
    def hear(self, holder: str) -> None:
        """Let a pool give a sign of life; one that is not among the living enters itself."""
        assert bool(self.run("beat", {"id": holder})) == (holder in self.model.pools)
        if holder not in self.model.pools:
            entry = {"host": "here", "pid": 1, "concurrency": 1, "version": "1"}
            self.run("register_pool", {"id": holder, "dead_after": 60, **entry})
        self.model.pools[holder] = self.model.now

    @rule(silent=drawn.holders, seconds=st.sampled_from([59, 61, 61]))
    def vanish(self, silent: str, seconds: int) -> None:
        """Let a pool be silent, mostly too long: the other one judges it. It still believes to hold what it held."""
        self.after(timedelta(seconds=seconds))
        self.hear(other(silent))
        self.look()
        assert dict(self.run("bury_dead_pools")) == self.model.bury()

    @rule(pause=drawn.pauses)
    def clear_stale_locks(self, pause: timedelta) -> None:
        self.after(pause)
        assert self.run("clear_stale_locks") == [(self.model.clear_stale_locks(),)]

    # Administration.

    @rule(key=drawn.keys, pause=drawn.pauses)
    def remove(self, key: str, pause: timedelta) -> None:
        self.after(pause)
        job, row = self.queue.remove_job(key), self.model.remove(key)
        assert (job and shown(job)) == (row and columns(row))

    def ids(self, picked: int) -> list[int]:
        """Return the ids of some jobs, and one that no job has."""
        return [*some(sorted(self.model.rows), picked), 1_000_000]

    @rule(picked=drawn.picks, reason=st.sampled_from([None, "enough", "done"]), pause=drawn.pauses)
    def end(self, picked: int, reason: str | None, pause: timedelta) -> None:
        """Complete some jobs, or fail them for good."""
        self.after(pause)
        ids = self.ids(picked)
        if reason == "done":
            assert_same(self.queue.complete_jobs(ids), self.model.complete(ids))
        else:
            assert_same(self.queue.permanently_fail_jobs(ids, reason), self.model.fail_for_good(ids, reason))

    @rule(picked=drawn.picks, changes=drawn.changes, pause=drawn.pauses)
    def reschedule(self, picked: int, changes: dict[str, Any], pause: timedelta) -> None:
        self.after(pause)
        ids = self.ids(picked)
        assert_same(self.queue.reschedule_jobs(ids, **changes), self.model.reschedule(ids, changes))

    @rule(holder=drawn.holders)
    def force_unlock(self, holder: str) -> None:
        self.queue.force_unlock_workers([holder])
        self.model.force_unlock(holder)

    @rule(tasks=drawn.cleanups)
    def clean_up(self, tasks: Collection[str]) -> None:
        assert self.queue.cleanup(tasks) == self.model.clean_up(tasks)


def parameters(claims: Claims) -> dict[str, Any]:
    return {"holder": claims.holder, "since": list(claims.since)}


def assert_same(jobs: list[Job], rows: list[Row]) -> None:
    assert sorted(map(shown, jobs)) == sorted(map(columns, rows))


@pytest.fixture
def tables(migrated_url: str) -> Iterator[Tables]:
    tables = Tables(migrated_url)
    yield tables
    tables.queue.close()


# Where there is a difference, hypothesis looks for the fewest steps for up to 300 s.
@pytest.mark.timeout(600 + IN_A_PART)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_tables_hold_what_the_model_holds(tables: Tables, part: int) -> None:
    @seed(SEED + part)
    def machine() -> Machine:
        return Machine(tables)

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=IN_A_PART,
            stateful_step_count=50,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
    assert tables.claimed > 3 * tables.examples  # or else the examples are about empty tables
