"""Payloads from one language to the other: what arrives equal, what Node alters, and what is refused at the door.

Node reads every number as a double, so of what JSON carries it alone loses something: integers beyond 2**53, and on
its own way out minus zero, NaN and the infinities. What Python writes arrives at Python as it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from command_line import graphile
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_sql import connect, eventually

from graphile_worker_py import InvalidJobSpec, JobSpec, Queue
from interop import node
from interop.host import NodeWorker, Refused, plain

pytestmark = [pytest.mark.usefixtures("packages")]

each_living = pytest.mark.parametrize("version", node.LIVING)
python_to_node = pytest.mark.direction("payloads from Python to Node")
node_to_python = pytest.mark.direction("payloads from Node to Python")
there_and_back = pytest.mark.direction("payloads from Python to Node and back")


@pytest.fixture
def worker(version: str, migrated_url: str, node_worker: Callable[..., NodeWorker]) -> Iterator[NodeWorker]:
    with node_worker(version, migrated_url) as worker:
        yield worker


@pytest.fixture
def got(queue: Queue) -> list[Any]:
    """Return the list into which the task `python` puts its payloads."""
    payloads: list[Any] = []
    queue.task("python")(payloads.append)
    return payloads


def exactly(value: Any) -> str:
    """Return a text that is equal only for equal values of equal types: 1 is not True, and 0.0 is not -0.0."""
    return json.dumps(value, sort_keys=True)


def as_node_reads(value: Any) -> Any:
    """Return value with its numbers as doubles; what is too large for one is infinite."""
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.copysign(math.inf, value)
    if isinstance(value, list):
        return [as_node_reads(item) for item in value]
    if isinstance(value, dict):
        return {name: as_node_reads(item) for name, item in value.items()}
    return value


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = {"a": value}
    return value


NESTED_IN_NODE = "(() => {{ let value = 0; for (let i = 0; i < {}; i++) value = {{ a: value }}; return value; }})()"


# From Python to Node.

ARRIVES = {
    "nothing": None,
    "truths": [True, False, None],
    "empty": [[], {}, "", [[]], [{}], {"": {}}],
    "scalars": [0, 1, -1, 0.0, -0.0, 1.5],
    "a zero alone": 0,
    "a minus zero alone": -0.0,
    "false alone": False,
    "an empty text alone": "",
    "an empty list alone": [],
    "integers a double holds": [2**53, -(2**53), 2**53 + 2, 2**62, 10**22],
    "floats": [0.1, 1e308, -1e308, 1.7976931348623157e308, 5e-324, 2.2250738585072014e-308, 1e16, 1e-7, 1 / 3],
    "texts": ["é", "\u2028\u2029", "\ufeff", "\x7f\x01\t\n\r\b\f", '"\\/', "日本語", "<script>&amp;"],
    "beyond the first plane": ["\U0001f600", "👩‍👩‍👧", "\U0010ffff", "\ufffe\uffff"],
    "odd names": {"__proto__": 1, "constructor": 2, "toString": 3, "2": 4, "1": 5, "": 6, "👩": 7, "é": 8},
    "long": "x" * 1_000_000,
    "wide": list(range(10_000)),
    "deep": nested(300),
}


@each_living
@python_to_node
def test_equal(worker: NodeWorker, queue: Queue, tally: Callable[..., None]) -> None:
    """By add_job and by add_jobs alike. None, which is no payload, is stored and arrives as {}."""
    worker.run({"node": "tell([payload.name, exact(payload.value)])", "alone": "tell(exact(payload))"})
    expected = {name: exactly(as_node_reads(value)) for name, value in ARRIVES.items()}
    for name, value in ARRIVES.items():
        queue.add_job("node", {"name": name, "value": value})
    assert received(worker, len(ARRIVES)) == expected
    queue.add_jobs(JobSpec("node", {"name": name, "value": value}) for name, value in ARRIVES.items())
    assert received(worker, len(ARRIVES)) == expected
    for name, value in ARRIVES.items():
        queue.add_job("alone", value)
        assert exactly(plain(worker.told())) == (expected[name] if value is not None else "{}")
    tally(payloads=3 * len(ARRIVES))


def received(worker: NodeWorker, count: int) -> dict[str, str]:
    told = [worker.told() for _ in range(count)]
    return {name: exactly(plain(value)) for name, value in told}


@each_living
@python_to_node
def test_equal_from_the_command_line(worker: NodeWorker, migrated_url: str) -> None:
    worker.run({"node": "tell(exact(payload))"})
    value = {name: ARRIVES[name] for name in ("truths", "empty", "floats", "beyond the first plane", "odd names")}
    done = graphile("add", "node", json.dumps(value), "--database", migrated_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert exactly(plain(worker.told())) == exactly(as_node_reads(value))


@each_living
@python_to_node
def test_node_reads_large_integers_as_the_nearest_double(worker: NodeWorker, queue: Queue) -> None:
    worker.run({"node": "tell(exact(payload))"})
    queue.add_job("node", [2**53 + 1, -(2**53) - 1, 2**63 - 1, 10**25 + 1, 10**400, -(10**400)])
    assert plain(worker.told()) == [2.0**53, -(2.0**53), 2.0**63, 1e25, math.inf, -math.inf]


@each_living
@there_and_back
def test_node_writes_back_what_it_read(worker: NodeWorker, queue: Queue, got: list[Any]) -> None:
    """What remains of a batch after a partial failure on Node has lost its large integers, for good."""
    worker.run({"python": "payload.map(n => Promise.reject(new Error('no')))"})
    job = queue.add_job("python", [2**53 + 1, -0.0, 10**400])
    eventually(lambda: queue.job(job.id).last_error is not None)
    worker.stop()
    queue.reschedule_jobs([job.id], run_at=job.run_at)
    assert queue.run_once().completed == 1
    assert exactly(got) == exactly([[2**53, 0, None]])


# From Node to Python.

SENT = {  # JavaScript, and what arrives
    "undefined": {},
    "null": {},
    "0": 0,
    "false": False,
    "''": "",
    "[]": [],
    "({})": {},
    "[[], {}, [null]]": [[], {}, [None]],
    "2 ** 53": 2**53,
    "1e21": 1e21,
    "[0.1, 1e308, 5e-324, Number.MAX_VALUE, 1 / 3]": [0.1, 1e308, 5e-324, 1.7976931348623157e308, 1 / 3],
    "['é', '\\u2028', '\\u{1f600}', '\\u{10ffff}', '\\x01']": ["é", "\u2028", "\U0001f600", "\U0010ffff", "\x01"],
    "({['__proto__']: 1, '': 2, 2: 3})": {"__proto__": 1, "": 2, "2": 3},
    NESTED_IN_NODE.format(300): nested(300),
    "'x'.repeat(1000000)": "x" * 1_000_000,
    # What JavaScript has and JSON does not.
    "-0": 0,
    "1.0": 1,
    "2 ** 60": 1152921504606847000,  # the shortest digits of that double, of which 2**60 has more
    "[NaN, Infinity, undefined, () => 1]": [None] * 4,
    "({a: NaN, b: undefined})": {"a": None},
    "new Date(0)": "1970-01-01T00:00:00.000Z",
    "[new Map([[1, 2]]), new Set([1])]": [{}, {}],
}


@each_living
@node_to_python
def test_equal_or_as_json_stringify_has_it(
    worker: NodeWorker, queue: Queue, got: list[Any], tally: Callable[..., None]
) -> None:
    for source in SENT:
        worker.add_job("python", source)
    worker.add_jobs([{"identifier": "python", "payload": source} for source in SENT])
    assert queue.run_once(1).completed == 2 * len(SENT)
    assert [exactly(value) for value in got] == [exactly(value) for value in [*SENT.values()] * 2]
    tally(payloads=2 * len(SENT))


@each_living
@node_to_python
def test_nan_alone_becomes_null_or_nothing(worker: NodeWorker, queue: Queue, got: list[Any]) -> None:
    worker.add_job("python", "NaN")
    worker.add_jobs([{"identifier": "python", "payload": "NaN"}])
    assert queue.run_once(1).completed == 2
    assert got == [None, {}]


@each_living
@node_to_python
def test_big_integers_are_refused_by_node(worker: NodeWorker) -> None:
    with pytest.raises(Refused, match="BigInt"):
        worker.add_job("python", "({n: 10n})")


@each_living
@node_to_python
def test_texts_that_are_not_unicode(worker: NodeWorker, queue: Queue, got: list[Any]) -> None:
    """Node stores NUL and halves of characters, by addJob only; they arrive, and they survive a failure."""
    odd = "['half \\ud800', 'nul \\u0000', 'fine']"
    worker.add_job("python", odd)
    assert queue.run_once().completed == 1
    assert got == [["half \ud800", "nul \x00", "fine"]]

    @queue.task
    def batch(payload: list[str]) -> list[Exception | None]:
        return [None if text == "fine" else ValueError(text) for text in payload]

    job = worker.add_job("batch", odd)
    assert queue.run_once().retrying == 1
    kept = queue.job(int(job["id"]))
    assert kept.payload == ["half \ud800", "nul \x00"]
    assert "half \\ud800" in kept.last_error
    assert "nul \\x00" in kept.last_error
    for source in ("'\\ud800'", "'\\u0000'"):
        with pytest.raises(Refused) as refused:
            worker.add_jobs([{"identifier": "python", "payload": source}])
        assert refused.value.code in ("22P02", "22P05")


@each_living
@node_to_python
def test_a_payload_too_deep_for_python_harms_nobody_else(worker: NodeWorker, queue: Queue, got: list[Any]) -> None:
    """How deep is too deep depends on the version of Python; the job then fails with an error that says so."""
    deep = worker.add_job("python", NESTED_IN_NODE.format(2000))
    worker.add_job("python", "'fine'")
    summary = queue.run_once(1)
    assert "fine" in got
    if summary.completed == 1:
        assert "RecursionError" in queue.job(int(deep["id"])).last_error
    else:
        assert summary.completed == 2


# Alike on both sides.

TEXTS = (
    '{"a": 1, "a": 2}',
    '{"a": {"b": 1}, "a": []}',
    " [ 1 ,\n\t2 ] ",
    '["\\u00e9", "\\ud83d\\ude00", "\\/"]',
    "[1.10, 1E2, 1e-2, -0, -0.0, 0e5, 1e400, -1e400]",
    "[12345678901234567890123, 1.0000000000000000000000001]",
    "null",
)


@each_living
@pytest.mark.direction("payloads from SQL to both")
def test_both_read_the_same_text_alike(
    worker: NodeWorker, queue: Queue, got: list[Any], migrated_url: str, tally: Callable[..., None]
) -> None:
    """The last of two equal names counts, and the numbers are those Python reads, as doubles."""
    worker.run({"node": "tell(exact(payload))"})
    with connect(migrated_url) as db:
        for text in TEXTS:
            for identifier in ("node", "python"):
                db.execute("select graphile_worker.add_job(%s, %s::json)", [identifier, text])
            assert queue.run_once().completed == 1
            read = plain(worker.told())
            assert exactly(doubles(read)) == exactly(doubles(as_node_reads(got[-1])))
    tally(payloads=2 * len(TEXTS))


def doubles(value: Any) -> Any:
    """Return value with minus zero as zero: "-0" is an integer to Python, which has no such integer."""
    return json.loads(json.dumps(value).replace("-0.0", "0.0"))


@each_living
@there_and_back
def test_lists_of_both_under_one_key(worker: NodeWorker, queue: Queue, got: list[Any]) -> None:
    """They become one, through jsonb: equal but for minus zero, which it does not have."""
    ours = [1, 1.5, -0.0, 1e308, 5e-324, 2**53 + 1, "é\U0001f600", None, {"b": [], "a": {}}]
    queue.add_job("python", ours, job_key="k")
    worker.add_job("python", "[2, 0.1, '\\u{1f600}']", jobKey="k")
    queue.add_job("python", [3], job_key="k")
    queue.add_job("node", ours, job_key="l")
    worker.run({"node": "tell(exact(payload))"})
    assert queue.run_once().completed == 1
    merged = [0.0 if item == 0 else item for item in ours] + [2, 0.1, "\U0001f600", 3]
    assert [as_node_reads(item) for item in got[0]] == [as_node_reads(item) for item in merged]
    assert got[0][5] == 2**53 + 1
    assert plain(worker.told()) == as_node_reads(ours)


TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
NUMBER = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


@each_living
@there_and_back
def test_whatever_python_says_comes_back_from_node(
    worker: NodeWorker, queue: Queue, got: list[Any], tally: Callable[..., None]
) -> None:
    """Equal as doubles: 1e17 comes back as an integer, for Node prints it as one."""
    worker.run({"node": "helpers.addJob('python', payload).then(() => tell(null))"})

    @settings(derandomize=True, database=None, max_examples=50, deadline=None)
    @given(st.lists(JSON, max_size=20))
    def comes_back(values: list[Any]) -> None:
        queue.add_job("node", values)
        worker.told()
        assert queue.run_once().completed == 1
        assert as_node_reads(got[-1]) == as_node_reads(values)
        tally(payloads=1)

    comes_back()


# Refused at the door.

NOT_JSON: Mapping[str, Any] = {
    "NaN": math.nan,
    "infinity": -math.inf,
    "NUL": "a\x00b",
    "a half character": "\ud800",
    "a NUL in a name": {"\x00": 1},
    "a name that is no text": {1: 2},
    "bytes": b"x",
    "deep": nested(5000),
}


@pytest.mark.direction("payloads refused at our door")
@pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_could_not_arrive_is_refused(value: Any, queue: Queue) -> None:
    for payload in (value, [value], {"a": [value]}):
        with pytest.raises(InvalidJobSpec, match="payload"):
            queue.add_job("node", payload)
        with pytest.raises(InvalidJobSpec, match="payload"):
            queue.add_jobs([JobSpec("node", 1), JobSpec("node", payload)])
    assert not queue.jobs()


@pytest.mark.direction("payloads refused at our door")
@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', '"\\u0000"', '"\\ud800"'])
def test_what_could_not_arrive_is_refused_on_the_command_line(text: str, queue: Queue, migrated_url: str) -> None:
    done = graphile("add", "node", text, "--database", migrated_url)
    assert done.returncode == 2, done
    assert not queue.jobs()
