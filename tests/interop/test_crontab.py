"""Node's parser and ours on the same text: what one reads the other reads alike, but for what is listed here."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphile_worker_py import CronItem, InvalidCrontab
from graphile_worker_py.cron.crontab import parse_crontab
from graphile_worker_py.cron.schedule import is_due
from interop import node

pytestmark = pytest.mark.usefixtures("packages")

Ask = Callable[..., dict[str, Any]]

# What Node reads and we refuse, for no database would take it, or no JSON can hold it.
STRICTER = re.compile(
    "max: expected 1 to|priority: expected -32768|jobKey: expected 1 to|jobKey: holds a NUL"
    "|fill: that is longer|task: expected 1 to|id: expected 0 to|queue: expected 0 to"
    "|payload[^:]*: (-?inf|nan) is not JSON|payload[^:]*: holds a (NUL|lone)|payload[^:]*: a key holds a"
)


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Return a function that tells what Node's parser makes of a text."""
    process = subprocess.Popen(
        node.script(node.NEWEST, "crontab"),
        env=node.environment(node.NEWEST, ""),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asking, answers = process.stdin, process.stdout

    def answer(text: str, **more: Any) -> dict[str, Any]:
        asking.write(json.dumps({"text": text, **more}) + "\n")
        asking.flush()
        return dict(json.loads(answers.readline()))

    yield answer
    asking.close()
    assert process.wait(timeout=30) == 0
    answers.close()


def as_node_has_it(item: CronItem) -> dict[str, Any]:
    """Return an item in the shape of Node's, what is undefined there left out."""
    pattern = item.pattern
    payload = json.loads(item.payload_head.rstrip(",") + "}") if item.payload is not None else None
    options = {
        "backfillPeriod": item.backfill / timedelta(milliseconds=1),
        "maxAttempts": item.max_attempts,
        "queueName": item.queue_name,
        "priority": item.priority,
        "jobKey": item.job_key,
        "jobKeyMode": item.job_key_mode or ("replace" if item.job_key else None),
    }
    return {
        "match": {
            "minutes": list(pattern.minutes),
            "hours": list(pattern.hours),
            "dates": list(pattern.dates),
            "months": list(pattern.months),
            "dows": list(pattern.weekdays),
        },
        "task": item.task,
        "identifier": item.identifier,
        "options": {name: value for name, value in options.items() if value is not None},
        "payload": payload,
    }


def without_cron(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item of Node's without a `_cron` of the user's own: it is overwritten when a job is added."""
    payload = item["payload"]
    return {**item, "payload": payload and {key: value for key, value in payload.items() if key != "_cron"}}


def compare(ask: Ask, text: str) -> str:
    """Check that both agree about a text, and return in what way."""
    theirs = ask(text)
    try:
        ours = parse_crontab(text)
    except InvalidCrontab as error:
        if "error" in theirs:
            return "refused"
        unlisted = [problem.message for problem in error.problems if not STRICTER.match(problem.message)]
        if unlisted:
            raise AssertionError(f"Node reads {text!r}, and we do not: {unlisted}") from error
        return "stricter"
    if any(item.extensions for item in ours):
        assert "error" in theirs, (text, ours, theirs)
        return "extension"
    both = [[as_node_has_it(item) for item in ours], [without_cron(item) for item in theirs.get("items", [theirs])]]
    one, other = json.loads(json.dumps(both), parse_int=float)  # Node has no other numbers
    assert one == other, text
    return "read"


# Texts: most lines are good ones, the others have some odd part or character.

numbers = st.integers(0, 70).map(str) | st.sampled_from(["0", "00", "007", "7", "12", "23", "31"])
good_entry = st.sampled_from(["*", "*/5", "*/100", "*/1", "1", "007", "7", "5-7", "1-6", "2-5", "3"])
odd_entry = st.one_of(
    numbers,
    st.builds("{}-{}".format, numbers, numbers),
    st.builds("*/{}".format, numbers),
    st.builds("{}-{}/{}".format, numbers, numbers, numbers),
    st.sampled_from(["mon", "jan-mar", "sun", "FRI-sun", "", "-", "*/", "1-", "/2", "5/2", "L", "?"]),
)
good_fields = st.tuples(*[st.lists(good_entry, min_size=1, max_size=3).map(",".join)] * 5)
odd_fields = st.one_of(
    st.tuples(*[st.lists(good_entry | odd_entry, min_size=1, max_size=2).map(",".join)] * 5),
    st.sampled_from([("@hourly",), ("@daily",), ("@never",)]),
    st.lists(good_entry, max_size=7).map(tuple),
)
good_task = st.sampled_from(["a", "b", "task", "_:/-9", "make:re/port", "constructor"])
odd_task = st.sampled_from(["9a", "a.b", "é", "a{b", ""])
space = st.sampled_from([" ", " ", " ", "  ", "\t", "\u00a0", "\u2003", "\ufeff", "\v"])
good_options = {
    "id": ["id=a", "id=b-1", "%69d=x", "id=_-9", "id=c&"],
    "fill": ["fill=1d", "fill=1w2d3h4m5s", "fill=1h1h", "fill=0s", "&fill=30m"],
    "max": ["max=1", "max=007", "max=32767", "max=%33"],
    "queue": ["queue=q", "queue=A:b_c-1"],
    "jobKey": ["jobKey=a+b%20c", "jobKey=%zz%C3%A9%C3%28", "jobKey={b}", "jobKey=a=b?c", "jobKey=é%2"],
    "mode": ["jobKeyMode=replace", "jobKeyMode=preserve_run_at"],
    "priority": ["priority=-5", "priority=5", "priority=-00"],
}
odd_option = st.one_of(
    st.sampled_from(
        ["id=", "id=9", "id=a%20b", "fill=5", "fill=1D", "fill=", "fill=1.5h", "max=0", "max=40000", "max=-1"]
    ),
    st.sampled_from(["max=", "max", "max=+3", "queue=a+b", "queue=", "priority=+5", "priority=--5", "priority=-99999"]),
    st.sampled_from(["jobKey=", "jobKeyMode=unsafe_dedupe", "jobKeyMode=", "tz=UTC", "tz=Europe/Paris", "tz=No"]),
    st.sampled_from(["ID=a", "=x", "constructor=1", "id=a&id=a", "jobKey=%00", ""]),
)
good_value = st.recursive(
    st.sampled_from(
        ["null", "true", "1", "-0", "+1", ".5", "5.", "1e3", "0x1F", "/**/1", "''", "'a\\'b'", "'}'", "'{'"]
    )
    | st.sampled_from(['"\\u0041\\x42"', "'\\v\\q'", '"é \\"//"', "'a\tb'"])
    | st.integers(-(2**53), 2**53).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: f"[{','.join(values)}]")
        | st.lists(inner, max_size=2).map(
            lambda values: "{" + ", ".join(f"k{n}: {v}" for n, v in enumerate(values)) + "}"
        )
    ),
    max_leaves=5,
)
odd_value = st.sampled_from(
    ["NaN", "-Infinity", "1e999", "01", "tru", "'\\0'", "'\\01'", "'é\\\n'", "[,]", "{a}", "", "'"]
)
good_key = st.sampled_from(["a", "'b c'", '"d"', "$e_", "é", "\\u0061", "_cron", "__proto__", "null"])
odd_key = st.sampled_from(["1", "a b", "a-b", "", "'a"])
odd_tail = st.sampled_from(["}", "{}", " {}", " # x", "x", " x }", " ?id=z"])
odd_character = st.sampled_from([*" \t*/-,019?&={}'\"#a+%\r\u2028\x85\x1fé:", ""])


@st.composite
def line(draw: st.DrawFn) -> str:
    """Draw a line that is good, or odd in one of its parts, or has a character too many, too few or another."""
    parts = ("fields", "task", "options", "key", "value", "tail", "character")
    odd = draw(st.sampled_from(["nothing"] * len(parts) + list(parts)))
    words = [*draw(odd_fields if odd == "fields" else good_fields), draw(odd_task if odd == "task" else good_task)]
    options = [draw(st.sampled_from(good_options[name])) for name in draw(st.sets(st.sampled_from(list(good_options))))]
    if odd == "options":
        options = draw(st.permutations([*options, draw(odd_option)]))
    if options:
        words.append("?" + "&".join(options))
    pairs = draw(st.none() | st.lists(st.builds("{}: {}".format, good_key, good_value), max_size=3))
    if odd in ("key", "value"):
        key = draw(odd_key if odd == "key" else good_key)
        pairs = [*(pairs or []), f"{key}: {draw(odd_value if odd == 'value' else good_value)}"]
    if pairs is not None:
        words.append("{" + ", ".join(pairs) + draw(st.sampled_from(["}", "}", ",}" if pairs else "}", "} //}"])))
    text = "".join(word + draw(space) for word in words[:-1]) + words[-1]
    if odd == "tail":
        text += draw(odd_tail)
    elif odd == "character":
        place, length = draw(st.integers(0, len(text))), draw(st.integers(0, 1))
        text = text[:place] + draw(odd_character) + text[place + length :]
    return text


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(line() | st.sampled_from(["", "# x", " \t# x"]), min_size=1, max_size=3), st.sampled_from(["\n", "\r\n"])
)
def test_both_read_or_refuse_alike(ask: Ask, lines: list[str], end: str) -> None:
    compare(ask, end.join(lines))


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("0 4 * * 1 a ?id=b&fill=1w2d3h4m5s&max=3&queue=q:1&jobKey=a%20b+c&priority=-3 {a: [1, .5, 0x10,]}", "read"),
        (
            "5,*/20 0-5,*/7 1,*/10 */5 5-7 a ?jobKey=k&jobKeyMode=preserve_run_at\r\n\r\n# x\r\n * * * * * _:/- {}",
            "read",
        ),
        ("*/100 * * * 7 a ?fill=1h1h&&\n\t0\u00a00 31 12 0,6 b {_cron: 1}", "read"),
        ("* * * * mon a", "extension"),
        ("1-10/2 * * * * a", "extension"),
        ("@daily a", "extension"),
        ("* * * * * a ?tz=UTC", "extension"),
        ("* * * * * a ?max=0", "stricter"),
        ("* * * * * a ?jobKey=", "stricter"),
        ("* * * * * a {b: NaN}", "stricter"),
        ("* * * * * a\n* * * * * a", "refused"),
        ("* * * * * a?id=b", "refused"),
        ("5-5 * * * * a", "refused"),
        ("* * * * * a # x", "refused"),
    ],
)
def test_how_they_agree(ask: Ask, text: str, how: str) -> None:
    assert compare(ask, text) == how


@settings(max_examples=200, deadline=None)
@given(good_fields, st.randoms(use_true_random=False))
def test_both_match_the_same_minutes(ask: Ask, fields: tuple[str, ...], dice: random.Random) -> None:
    text = " ".join([*fields, "a"])
    (item,) = parse_crontab(text)
    first = datetime(2023, 1, 1, tzinfo=timezone.utc)
    minutes = [first + timedelta(minutes=dice.randrange(4 * 365 * 1440)) for _ in range(100)]
    minutes += [first + timedelta(days=dice.randrange(4 * 365)) for _ in range(100)]
    times = [
        {"min": at.minute, "hour": at.hour, "date": at.day, "month": at.month, "dow": at.isoweekday() % 7}
        for at in minutes
    ]
    assert ask(text, times=times)["matches"] == [[is_due(item, minute) for minute in minutes]]
