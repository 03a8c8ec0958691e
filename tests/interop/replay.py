"""Two schemas in one database, Node's and ours, and what a sequence of steps shows in each of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import attrs
import psycopg

from graphile_worker_py import Queue
from interop import node
from interop.steps import Step

NODE, OURS = "node_side", "our_side"
FUNCTIONS = Path(__file__).with_name("replay.sql")
TABLES = ("_private_jobs", "_private_tasks", "_private_job_queues")
LEVELS = ("read committed", "repeatable read", "serializable")

# Node's add_jobs inserts in whatever order the planner's join comes up with. Where names are many and may be looked up
# in no other way, that is the order of the specs. Their ids are below zero, which the replay passes over.
MANY_NAMES = 5000
LOOKED_UP = ("enable_hashjoin", "enable_mergejoin", "jit")  # jit, for what is off is made to look dear, and compiled
SWEPT_EVERY = 50  # sequences, for each leaves dead rows behind


def install(url: str) -> None:
    """Install Node's newest schema and ours in one database."""
    command = [*node.cli(node.NEWEST), "--schema", NODE, "--schema-only"]
    environment = node.environment(node.NEWEST, url)
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    with Queue(url, schema=OURS) as queue:
        queue.migrate()


def on(side: str, statement: str) -> str:
    """Return the statement for one of the sides."""
    return statement.replace("SEEN.", f"{side}_seen.").replace("SIDE.", f"{side}.")


@attrs.frozen
class Seen:
    """All that can be seen after a step. Rows are text, a line each; burned counts the identity values used up."""

    error: str | None
    message: str | None
    returned: str | None
    jobs: str | None
    tasks: str | None
    queues: str | None
    burned: str
    heard: tuple[str, ...]


class Replay:
    """A connection that replays sequences, now on the one side and now on the other."""

    def __init__(self, url: str) -> None:
        self._heard: list[psycopg.Notify] = []
        self._replayed = 0
        self._connection = psycopg.connect(url, autocommit=True, options="-c TimeZone=UTC")
        for side in (NODE, OURS):
            self._connection.execute(f"create schema {side}_seen")
            self._connection.execute(on(side, FUNCTIONS.read_text("utf-8")))
        self._keep_node_in_order()
        for channel in ("mark", "jobs:insert", "worker:migrate"):
            self._connection.execute(f'listen "{channel}"')
        self._connection.add_notify_handler(self._heard.append)

    def __call__(self, side: str, steps: Sequence[Step], level: str = LEVELS[0]) -> list[Seen]:
        """Replay the steps, in one transaction on tables that are empty, and return what was seen after each."""
        self._sweep_now_and_then()
        self._heard.clear()
        statements = [on(side, step.statement) for step in steps]
        with self._connection.transaction():
            self._connection.execute(f"set transaction isolation level {level}")
            rows = self._connection.execute(f"select * from {side}_seen.replay(%s)", [statements]).fetchall()  # noqa: S608
        return [Seen(*row, heard) for row, heard in zip(rows, self._by_step(), strict=True)]

    def _keep_node_in_order(self) -> None:
        for table, column in (("_private_tasks", "identifier"), ("_private_job_queues", "queue_name")):
            self._connection.execute(
                f"insert into {NODE}.{table} (id, {column}) overriding system value"  # noqa: S608
                f" select -n, 'name ' || n from generate_series(1, {MANY_NAMES}) as n"
            )
            self._connection.execute(f"vacuum analyze {NODE}.{table}")
        for setting in LOOKED_UP:
            self._connection.execute(f"alter function {NODE}_seen.replay set {setting} = off")

    def _by_step(self) -> Iterator[tuple[str, ...]]:
        marks = [-1, *(n for n, notification in enumerate(self._heard) if notification.channel == "mark")]
        for before, mark in pairwise(marks):
            yield tuple(map(_told, self._heard[before + 1 : mark]))

    def _sweep_now_and_then(self) -> None:
        self._replayed += 1
        if self._replayed % (2 * SWEPT_EVERY) == 0:
            tables = [f"{side}.{table}" for side in (NODE, OURS) for table in TABLES]
            self._connection.execute(f"vacuum {', '.join(tables)}")

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _told(notification: psycopg.Notify) -> str:
    """Tell a notification without its random part, which has to be there."""
    if not notification.payload:
        return notification.channel
    content = json.loads(notification.payload)
    content["r"] = 0 <= content["r"] < 1
    return f"{notification.channel} {json.dumps(content, sort_keys=True)}"
