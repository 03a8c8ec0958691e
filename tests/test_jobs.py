"""JobSpec: what is refused, where and in which words; what is taken, and as what. Payloads are in test_payload.py."""

from __future__ import annotations

import enum
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from graphile_worker_py import InvalidJobSpec, Job, JobSpec, Queue

NOW = datetime.now(timezone.utc)


class Zone(tzinfo):
    """A time zone that gives any answer, or raises one."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def utcoffset(self, _: datetime | None) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def dst(self, _: datetime | None) -> timedelta | None:
        return None


class Hostile:
    """An object all of whose methods raise."""

    def _raise(self, *_: object) -> Any:
        raise ZeroDivisionError("sesame")

    __eq__ = __hash__ = __str__ = __repr__ = __format__ = __len__ = __iter__ = __bool__ = __getattr__ = _raise  # type: ignore[assignment]


class Number(int):
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__
    __abs__ = __lt__ = __le__ = __gt__ = __ge__ = lambda *_: ZeroDivisionError  # type: ignore[assignment]


class Level(enum.IntEnum):
    HIGH = -5


class Name(str, enum.Enum):
    ADA = "ada"


class Word(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another"

    def __len__(self) -> int:
        return 100_000


NAMES = {"identifier": 128, "queue_name": 128, "job_key": 512, "flags": 10_000}
NO_STR: list[Any] = [5, True, b"x", ["x"], object(), Hostile(), NOW]
UNSTORABLE = ["a\x00", "\ud800", "a\udfffb"]
NO_INT: list[Any] = [True, False, 1.0, "1", b"1", [1], NOW, Hostile(), float("nan"), float("inf")]


def bad_arguments() -> Iterator[tuple[str, Any]]:
    for name, longest in NAMES.items():
        for value in [*NO_STR, *UNSTORABLE, "x" * (longest + 1)]:
            yield name, [value] if name == "flags" else value
    yield from [("identifier", None), ("identifier", ""), ("job_key", "")]
    for value in [*NO_INT, 32768, -32769, 10**5000, -(10**5000), Number(40000)]:
        yield "priority", value
    for value in [*NO_INT, 0, -1, 32768, Number(0)]:
        yield "max_attempts", value
    yield from (("flags", value) for value in ["urgent", b"urgent", 5, True, [None], ["a", None], bytearray(b"a")])
    yield from (("run_at", value) for value in [5, 1.5, "2031-01-01", True, NOW.date(), Hostile()])
    yield from (("run_at", value) for value in [datetime.now(), datetime.max, NOW.replace(tzinfo=Zone(None))])
    yield from (("run_at", NOW.replace(tzinfo=Zone(answer))) for answer in ["1", timedelta(2), ValueError(), OSError()])
    yield "run_at", NOW.replace(tzinfo=tzinfo())
    yield from (("run_at", NOW.replace(year=year)) for year in [1, 9999])
    yield "run_at", datetime(9998, 12, 31, 23, tzinfo=timezone(timedelta(hours=-14)))
    yield "run_at", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    yield from (("run_at", value) for value in [timedelta.max, timedelta.min, timedelta(days=365 * 8000)])
    yield from (("payload", value) for value in [float("nan"), "sesame\x00", {1: "sesame"}, b"sesame", Hostile()])


def bad_modes() -> Iterator[tuple[Any, str | None]]:
    yield from ((mode, "key") for mode in ["", "Replace", "nonsense", "x" * 1000, 5, True, ["replace"], Hostile()])
    yield from ((mode, None) for mode in ["replace", "preserve_run_at", "unsafe_dedupe", "nonsense"])


BAD = list(bad_arguments())
BAD_IDS = [f"{name}-{type(value).__name__}" for name, value in BAD]  # pytest would ask the values for their names


@pytest.mark.parametrize(("name", "value"), BAD, ids=BAD_IDS)
def test_a_bad_argument_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidJobSpec) as caught:
        JobSpec(**{"identifier": "task", name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert "sesame" not in message
    assert len(message) < 200
    assert "\n" not in message


def test_nothing_bad_reaches_the_table_by_any_way_of_adding(queue: Queue, db: psycopg.Connection) -> None:
    def refused(name: str, add: Callable[..., object], **arguments: Any) -> None:
        with pytest.raises(InvalidJobSpec, match=rf"^{name}: ") as caught:
            add(**arguments)
        assert refused.__code__ in [frame.f_code for frame, _ in traceback.walk_tb(caught.tb)]

    task = queue.task("task")(print)
    for name, value in BAD:
        arguments = {"identifier": "task", name: value}
        refused(name, queue.add_job, **arguments)
        refused(name, lambda **given: queue.add_jobs(JobSpec(**given) for _ in "1"), **arguments)
        if name != "identifier":
            refused(name, task.add_job, **{name: value})
    for mode, key in bad_modes():
        refused("job_key_mode", queue.add_job, identifier="task", job_key=key, job_key_mode=mode)
    assert db.execute("select from graphile_worker._private_jobs").fetchall() == []
    assert db.execute("select from graphile_worker._private_tasks").fetchall() == []


def test_what_a_naive_datetime_needs_is_said() -> None:
    with pytest.raises(InvalidJobSpec, match=r"^run_at: a naive datetime .* use an aware one"):
        JobSpec("task", run_at=datetime.now())


def test_a_mode_without_a_key_is_said_to_have_no_meaning(queue: Queue) -> None:
    with pytest.raises(InvalidJobSpec, match="no meaning without a job_key"):
        queue.add_job("task", job_key_mode="replace")


def test_the_limits_themselves_are_taken(queue: Queue) -> None:
    longest = {"queue_name": "雪" * 128, "job_key": "😀" * 512, "flags": ["x" * 10_000]}
    job = queue.add_job("雪" * 128, **longest, priority=32767, max_attempts=32767)
    assert (job.task_identifier, job.queue_name, job.key) == ("雪" * 128, "雪" * 128, "😀" * 512)
    assert (job.priority, job.max_attempts, job.flags) == (32767, 32767, ("x" * 10_000,))
    job = queue.add_job("t", queue_name="", job_key="k", priority=-32768, max_attempts=1)
    assert (job.task_identifier, job.queue_name, job.key, job.priority, job.max_attempts) == ("t", "", "k", -32768, 1)


ODD_ARGUMENTS: dict[str, Any] = {
    "queue_name": Word("q"),
    "job_key": Name.ADA,
    "priority": Level.HIGH,
    "max_attempts": Number(7),
    "flags": ["b", Name.ADA, Word("c")],
}


@pytest.mark.parametrize("add", ["add_job", "add_jobs"])
def test_subclasses_of_str_and_int_and_enums_count_as_what_they_hold(queue: Queue, add: str) -> None:
    if add == "add_job":
        job = queue.add_job(Name.ADA, **ODD_ARGUMENTS)
    else:
        (job,) = queue.add_jobs([JobSpec(Name.ADA, **ODD_ARGUMENTS)])
    values = (job.task_identifier, job.queue_name, job.key, job.priority, job.max_attempts)
    assert values == ("ada", "q", "ada", -5, 7)
    assert [type(value) for value in values] == [str, str, str, int, int]
    assert sorted(job.flags) == ["ada", "b", "c"]
    assert queue.job(job.id) == job


FLAGS: list[tuple[Any, tuple[str, ...]]] = [
    (["b", "a", "b"], ("a", "b")),
    ({"a"}, ("a",)),
    ({"a": True}, ("a",)),
    (iter("ab"), ("a", "b")),
    ((), ()),
    ([], ()),
    (None, ()),
]


def test_flags_come_from_any_iterable(queue: Queue) -> None:
    for flags, expected in FLAGS:
        spec = JobSpec("task", flags=flags)
        added = [queue.add_job("task", flags=spec.flags), *queue.add_jobs([spec])]
        assert [job.flags for job in added] == [expected, expected]


MOMENTS = [
    datetime(2031, 2, 3, 4, 5, 6, 789012, tzinfo=timezone.utc),
    datetime(1999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-12))),
    datetime(2031, 10, 26, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(1880, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam")),  # 19 minutes and some seconds
    datetime(2031, 1, 1, tzinfo=timezone(timedelta(microseconds=1))),
    datetime(2, 1, 1, tzinfo=timezone.utc),
    datetime(9998, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc),
]


def test_run_at_is_stored_to_the_microsecond(queue: Queue) -> None:
    for run_at in MOMENTS:
        one, (two,) = queue.add_job("task", run_at=run_at), queue.add_jobs([JobSpec("task", run_at=run_at)])
        # In UTC, because a time in a fold equals no other in its own zone.
        assert one.run_at == two.run_at == run_at.astimezone(timezone.utc)
        assert queue.job(one.id) == one
        assert [job.run_at for job in queue.jobs(after=one.id - 1)] == [one.run_at, one.run_at]


DELAYS = [
    timedelta(0),
    timedelta(microseconds=1),
    timedelta(seconds=-1),
    timedelta(days=400, hours=-1),
    timedelta(days=-300_000, microseconds=-1),
    timedelta(days=365 * 5000, seconds=1.5),
]


def test_a_timedelta_counts_from_the_clock_of_the_database(queue: Queue) -> None:
    for delay in DELAYS:
        one, (two,) = queue.add_job("task", run_at=delay), queue.add_jobs([JobSpec("task", run_at=delay)])
        assert one.run_at - one.created_at == two.run_at - two.created_at == delay


def test_a_spec_says_what_it_is_but_not_its_payload() -> None:
    spec = JobSpec("task", {"password": "sesame"}, job_key="k", flags=["f"])
    assert "job_key='k'" in repr(spec)
    assert "sesame" not in repr(spec)
    assert spec == JobSpec("task", {"password": "sesame"}, job_key="k", flags=("f",))
    assert spec != JobSpec("task", {"password": "pepper"}, job_key="k", flags=("f",))
    assert len({spec, JobSpec("task", {"password": "sesame"}, job_key="k", flags=["f"])}) == 1


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        JobSpec("task").identifier = "other"  # type: ignore[misc]


def test_the_payload_is_fixed_when_the_spec_is_made(queue: Queue) -> None:
    queue.task("task", priority=3)(print)
    payload: dict[str, Any] = {"a": 1}
    spec = JobSpec("task", payload)
    payload["a"] = float("nan")
    (job,) = queue.add_jobs([spec])
    assert (job.payload, job.priority) == ({"a": 1}, 3)


def test_a_job_decodes_its_payload_once_and_does_not_show_it(queue: Queue) -> None:
    job: Job = queue.add_job("task", {"password": "sesame"})
    assert job.payload is job.payload
    assert "sesame" not in repr(job)
