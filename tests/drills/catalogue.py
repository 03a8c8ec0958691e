"""All drills, by name, and how one is run."""

from __future__ import annotations

import math
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module

import attrs
import psycopg

from drills import invariants, rates
from drills.ledger import Attempt
from drills.scene import DrillFailed, Figure, Scene, Stage
from drills.servers import Server, Unavailable, scratch
from graphile_worker_py import Queue

NEVER = 99_999.0  # what JSON has instead of infinity
Body = Callable[[Scene], None]


@attrs.frozen
class Drill:
    """A drill: the row of the table it stands for, and what is done."""

    name: str
    fault: str
    passes: str
    body: Body


@attrs.frozen(kw_only=True)
class Result:
    """What came of a drill. `rate`: jobs done in each of its seconds; `faults`: kind, from and to, in seconds."""

    name: str
    passed: bool
    short: bool
    seconds: float
    figures: list[Figure]
    problems: list[str]
    rate: list[int]
    faults: list[tuple[str, float, float]]


DRILLS: dict[str, Drill] = {}
MODULES = ("killing", "stopping", "outages", "links", "strain", "failover", "oddities", "cron", "soak")


def load() -> None:
    """Fill DRILLS, in the order of the table."""
    for module in MODULES:
        import_module(f"drills.{module}")


def drill(name: str, fault: str, passes: str) -> Callable[[Body], Body]:
    """Enter a function in the catalogue, with what it does and what has to come of it, in words for the table."""

    def enter(body: Body) -> Body:
        DRILLS[name] = Drill(name, fault, passes, body)
        return body

    return enter


@contextmanager
def stage() -> Iterator[Stage]:
    """Make what all drills share: a server to copy, with the schema installed, and one for the ledgers."""
    with scratch() as folder, ExitStack() as stack:
        template = Server(folder / "template")
        template.initialize()
        with template:
            template.execute("create role app login", dbname="postgres")
            template.execute("create database app owner app", dbname="postgres")
            with Queue(template.conninfo()) as queue:
                queue.migrate()
        template.stop()
        ledgers = Server(folder / "ledgers", template=template)
        stack.enter_context(ledgers)
        yield Stage(folder, template, ledgers)


def run(drill: Drill, stage: Stage, *, short: bool) -> Result:
    """Run a drill to its end, whatever goes wrong."""
    began = time.monotonic()
    problems: list[str] = []
    scene = Scene(drill.name, stage, short=short)
    try:
        drill.body(scene)
    except Unavailable as error:
        problems.append(f"not run: {error}")
    except DrillFailed as error:
        problems.append(str(error))
    except Exception:
        problems.append(traceback.format_exc())
    attempts = scene.record.attempts
    try:
        attempts = attempts or scene.ledger.attempts()
        problems += invariants.violations(scene.record)
        problems += [] if problems else invariants.vacuous(scene.record)
    except psycopg.Error as error:
        problems.append(f"the ledger cannot be read: {error}")
    finally:
        scene.close()
    problems += [f"{figure.name}: {figure.value:g}, not {figure.limit}" for figure in scene.figures if not figure.holds]
    if not problems:
        shutil.rmtree(scene.folder, ignore_errors=True)
    return Result(
        name=drill.name,
        passed=not problems,
        short=short,
        seconds=round(time.monotonic() - began, 1),
        figures=[attrs.evolve(figure, value=round(min(figure.value, NEVER), 3)) for figure in scene.figures],
        problems=problems,
        **_plot(scene, attempts),
    )


def _plot(scene: Scene, attempts: list[Attempt]) -> dict[str, list]:
    begins = scene.begun_at
    times = sorted(a.ended for a in attempts if a.result == "done" and a.ended is not None)
    over = [fault.ended for fault in scene.faults if fault.ended < math.inf]
    ends = max([begins, *times[-1:], *(fault.began for fault in scene.faults), *over])
    faults = [(f.kind, round(f.began - begins, 1), round(min(f.ended, ends) - begins, 1)) for f in scene.faults]
    return {"rate": rates.by_second(times, begins, ends), "faults": faults}
