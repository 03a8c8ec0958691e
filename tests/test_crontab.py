"""Crontabs, their grammar and their mistakes; and CronItem, which is the same in Python."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import pytest

from graphile_worker_py import CronItem, CrontabProblem, InvalidCrontab
from graphile_worker_py.cron.crontab import parse_crontab, read_crontab
from graphile_worker_py.cron.pattern import ALIASES, FIELDS, Pattern, read_pattern

MINUTES, HOURS, DATES, MONTHS = (tuple(range(field.lowest, field.highest + 1)) for field in FIELDS[:4])
WEEKDAYS = tuple(range(7))
MIDNIGHT = datetime(2024, 1, 1, tzinfo=timezone.utc)


def item(text: str) -> CronItem:
    (only,) = parse_crontab(text)
    return only


def problems(text: str) -> tuple[CrontabProblem, ...]:
    with pytest.raises(InvalidCrontab) as caught:
        parse_crontab(text, file="my crontab")
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return caught.value.problems


# Time fields


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * *", (MINUTES, HOURS, DATES, MONTHS, WEEKDAYS)),
        ("0 4 1 12 0", ((0,), (4,), (1,), (12,), (0,))),
        ("5,007,5 23 31 1-3 7", ((5, 7), (23,), (31,), (1, 2, 3), (0,))),
        ("*/20 */23 */10 */5 */3", ((0, 20, 40), (0, 23), (1, 11, 21, 31), (1, 6, 11), (0, 3, 6))),
        ("*/100,59 0-1 30-31 1,*/6 5-7", ((0, 59), (0, 1), (30, 31), (1, 7), (0, 5, 6))),
        ("1-10/3 2-6/2 1-31/15 4-12/4 1-7/3", ((1, 4, 7, 10), (2, 4, 6), (1, 16, 31), (4, 8, 12), (0, 1, 4))),
        ("0 0 * jan,MAR-may,12 Mon-fri", ((0,), (0,), DATES, (1, 3, 4, 5, 12), (1, 2, 3, 4, 5))),
        ("0 0 * * sun-tue", ((0,), (0,), DATES, MONTHS, (0, 1, 2))),
        ("0 0 * * fri-sun", ((0,), (0,), DATES, MONTHS, (0, 5, 6))),
        ("0 0 * * sat-7,0", ((0,), (0,), DATES, MONTHS, (0, 6))),
        ("\t0\u00a00  * *\ufeff* ", ((0,), (0,), DATES, MONTHS, WEEKDAYS)),
        ("@yearly", ((0,), (0,), (1,), (1,), WEEKDAYS)),
        ("@monthly", ((0,), (0,), (1,), MONTHS, WEEKDAYS)),
        ("@weekly", ((0,), (0,), DATES, MONTHS, (0,))),
        ("@daily", ((0,), (0,), DATES, MONTHS, WEEKDAYS)),
        ("@hourly", ((0,), HOURS, DATES, MONTHS, WEEKDAYS)),
    ],
)
def test_what_patterns_mean(text: str, expected: tuple[tuple[int, ...], ...]) -> None:
    assert read_pattern(text) == Pattern(*expected)


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("60 * * * *", 1, "minute: expected 0 to 59, got 60"),
        ("0 24 * * *", 3, "hour: expected 0 to 23"),
        ("0 0 0 * *", 5, "day of the month: expected 1 to 31"),
        ("0 0 * 13 *", 7, "month: expected 1 to 12"),
        ("0 0 * * 8", 9, "day of the week: expected 0 to 7"),
        ("99999999999999999999999 * * * *", 1, "expected 0 to 59"),
        ("1,2,x * * * *", 5, "expected a number, got 'x'"),
        ("1,,2 * * * *", 3, "got ''"),
        ("0 0 * * *,", 11, "got ''"),
        ("5-5 * * * *", 1, "end later"),
        ("10-5 * * * *", 1, "end later"),
        ("1-60 * * * *", 3, "expected 0 to 59"),
        ("0 0 * * fri-tue", 9, "end later"),
        ("0 0 * foo *", 7, "jan, feb"),
        ("0 0 * * jan", 9, "sun, mon"),
        ("0 feb * * *", 3, "expected a number"),
        ("*/0 * * * *", 3, "step must be at least 1"),
        ("5/10 * * * *", 2, "5-59/10"),
        ("1-*/2 * * * *", 1, "a range"),
        ("? * * * *", 1, "a range"),
        ("0 0 L * *", 5, "expected a number"),
        ("\u0663 * * * *", 1, "a range"),
        ("* * * *", 8, "five time fields"),
        ("* * * * * *", 12, "five time fields"),
        ("", 1, "five time fields"),
        ("@reboot", 1, "@hourly, @daily"),
        ("@Daily", 1, "@hourly, @daily"),
        ("@daily *", 9, "five time fields"),
    ],
)
def test_what_patterns_cannot_be(text: str, column: int, says: str) -> None:
    with pytest.raises(InvalidCrontab, match=re.escape(says)) as caught:
        CronItem(text, "task")
    assert [problem.column for problem in caught.value.problems] == [column]


def test_all_mistakes_of_a_pattern_are_told() -> None:
    with pytest.raises(InvalidCrontab) as caught:
        read_pattern("60,x 24 , jan 8")
    assert [problem.column for problem in caught.value.problems] == [1, 4, 6, 9, 10, 15]


# Lines


def test_a_line_with_everything() -> None:
    text = (
        "0 4 * * 1 make:re/port_2- ?id=_a-1&fill=1w2d3h4m5s&max=3&queue=q:1&jobKey=a%20b+c&jobKeyMode=preserve_run_at"
    )
    found = item(text + "&priority=-3&tz=Europe/Paris {to: 'all', _cron: 1, list: [1, .5, 0x10,]}")
    assert found == CronItem(
        "0 4 * * 1",
        "make:re/port_2-",
        {"to": "all", "list": [1, 0.5, 16]},
        identifier="_a-1",
        backfill=timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5),
        max_attempts=3,
        queue_name="q:1",
        job_key="a b c",
        job_key_mode="preserve_run_at",
        priority=-3,
        tz=ZoneInfo("Europe/Paris"),
    )
    assert found.origin == "crontab:1"
    assert found.payload_at(MIDNIGHT, backfilled=True) == (
        '{"to":"all","list":[1,0.5,16],"_cron":{"ts":"2024-01-01T00:00:00.000Z","backfilled":true}}'
    )


def test_a_line_with_nothing_but_a_task() -> None:
    found = item("* * * * * report")
    assert found == CronItem("* * * * *", "report")
    assert (found.identifier, found.backfill, found.tz) == ("report", timedelta(0), timezone.utc)
    assert found.payload_at(MIDNIGHT, backfilled=False) == (
        '{"_cron":{"ts":"2024-01-01T00:00:00.000Z","backfilled":false}}'
    )


def test_blank_lines_comments_and_line_ends() -> None:
    text = "\ufeff# a comment\r\n\n  \u00a0\n\t# another\n * * * * * a \r\n@daily b ?fill=1d {} \n#* * * * * c"
    assert [(one.task, one.origin) for one in parse_crontab(text)] == [("a", "crontab:5"), ("b", "crontab:6")]
    assert parse_crontab("") == []


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ("{}", {}),
        ('{"a": {"b": null}, "c": 12345678901234567890}', {"a": {"b": None}, "c": 12345678901234567890}),
        ("{a: '}', /* x */ 'b c': \"\\x41\\u0042\", d: +1., e: -0x1F,}", {"a": "}", "b c": "AB", "d": 1.0, "e": -31}),
        ("{a: 1} //}", {"a": 1}),
        ("{a: 1, a: 2}", {"a": 2}),
        ("{_cron: 5, b: {_cron: 6}}", {"b": {"_cron": 6}}),
    ],
)
def test_payloads_are_json5(text: str, payload: Any) -> None:
    written = json.loads(item(f"* * * * * a {text}").payload_at(MIDNIGHT, backfilled=False))
    assert written.pop("_cron") == {"ts": "2024-01-01T00:00:00.000Z", "backfilled": False}
    assert written == payload


@pytest.mark.parametrize(
    ("line", "column", "says"),
    [
        ("* * * * a", 10, "five time fields and a task"),
        ("* * * * *a", 11, "five time fields and a task"),
        ("@daily", 7, "an alias and a task"),
        ("@dayly a", 1, "@daily"),
        ("* * * * * 9a", 11, "name of a task"),
        ("* * * * * \u00e9", 11, "name of a task"),
        ("* * * * * a.b", 12, "to go on with"),
        ("* * * * * a?id=b", 12, "to go on with"),
        ("* * * * * a{b:1}", 12, "to go on with"),
        ("* * * * * a b", 13, "?options"),
        ("* * * * * a ?", 14, "expected options"),
        ("* * * * * a ? id=b", 14, "expected options"),
        ("* * * * * a ?id=b c", 19, "?options"),
        ("* * * * * a # comment", 13, "?options"),
        ("* * * * * a [1]", 13, "?options"),
        ("* * * * * a {", 13, "end with }"),
        ("* * * * * a {b: 1} # comment", 28, "end with }"),
        ("* * * * * a {b: }", 17, "JSON5"),
        ("* * * * * a {b: 1} {c: 2}", 20, "JSON5"),
        ("* * * * * a {b: NaN}", 13, "payload.b: nan is not JSON"),
        ("* * * * * a {b: 1e999}", 13, "payload.b: inf is not JSON"),
        ("* * * * * a {b: '\\0'}", 13, "payload.b: holds a NUL"),
        ("* * * * * a\r* * * * * b", 12, "line separator"),
        ("* * * * * a {b: '\u2028'}", 18, "line separator"),
        ("* * * * * a ?id=9", 14, "id: expected letters"),
        ("* * * * * a ?id=" + "a" * 513, 14, "id: expected 0 to 512"),
        ("* * * * * a ?ID=b", 14, "one of the options id, fill"),
        ("* * * * * a ?=b", 14, "one of the options"),
        ("* * * * * a ?max=1&id=b&max=2", 25, "max: given twice"),
        ("* * * * * a ?fill=", 14, "fill: expected a period"),
        ("* * * * * a ?fill=5", 14, "fill: expected a period"),
        ("* * * * * a ?fill=1.5h", 14, "fill: expected a period"),
        ("* * * * * a ?fill=1h2", 14, "fill: expected a period"),
        ("* * * * * a ?fill=99999999999999999999w", 14, "fill: that is longer"),
        ("* * * * * a ?max=0", 14, "max: expected 1 to 32767"),
        ("* * * * * a ?max=32768", 14, "max: expected 1 to 32767"),
        ("* * * * * a ?max=+3", 14, "max: expected a whole number"),
        ("* * * * * a ?max=" + "9" * 5000, 14, "max: expected a whole number"),
        ("* * * * * a ?priority=--1", 14, "priority: expected a whole number"),
        ("* * * * * a ?priority=-32769", 14, "priority: expected -32768"),
        ("* * * * * a ?queue=", 14, "queue: expected letters"),
        ("* * * * * a ?queue=a%20b", 14, "queue: expected letters"),
        ("* * * * * a ?queue=" + "q" * 129, 14, "queue: expected 0 to 128"),
        ("* * * * * a ?jobKey=", 14, "jobKey: expected 1 to 512"),
        ("* * * * * a ?jobKey=%00", 14, "jobKey: holds a NUL"),
        ("* * * * * a ?jobKeyMode=unsafe_dedupe", 14, "jobKeyMode: expected replace or"),
        ("* * * * * a ?tz=Mars/Base", 14, "tz: expected a time zone"),
        ("* * * * * a ?tz=Europe", 14, "tz: expected a time zone"),
        ("* * * * * a ?tz=../UTC", 14, "tz: expected a time zone"),
        ("* * * * * a ?tz=", 14, "tz: expected a time zone"),
        ("* * * * * " + "a" * 129, 11, "task: expected 1 to 128"),
    ],
)
def test_what_lines_cannot_be(line: str, column: int, says: str) -> None:
    (problem,) = problems(f"# first\n{line}\n* * * * * good")
    assert (problem.file, problem.line, problem.column) == ("my crontab", 2, column)
    assert says in problem.message


def test_all_mistakes_of_a_file_are_told_with_a_caret_each() -> None:
    text = "60 * * * x a ?max=0&foo=1 {b: }\n* * * * * b\n\t@noon c\n"
    assert [(one.line, one.column) for one in problems(text)] == [(1, 1), (1, 10), (1, 15), (1, 21), (1, 31), (3, 2)]
    shown = str(problems(text)[-1]).splitlines()
    assert shown[0] == "my crontab:3:2: expected one of @hourly, @daily, @weekly, @monthly, @yearly"
    assert shown[1:] == ["    \t@noon c", "    \t^"]


def test_payloads_are_masked_where_mistakes_are_shown() -> None:
    shown = "".join(map(str, problems("60 * * * * a ?max=0 {password: 'hunter2', b: }")))
    assert "hunter2" not in shown
    assert "password" not in shown
    assert "60 * * * * a ?max=0 {xxxxxxxx: 'xxxxxxx', x: }" in shown


def test_what_cannot_be_printed_is_not() -> None:
    (problem,) = problems("60 * * * * a ?jobKey=\x1b[31m")
    assert "\x1b" not in str(problem)


def test_long_lines_are_cut_around_the_mistake() -> None:
    (problem,) = problems("* * * * * a ?jobKey=" + "k" * 400 + "&max=0")
    _, shown, caret = str(problem).splitlines()
    assert len(shown) < 170
    assert shown[caret.index("^") :].startswith("max=0")


def test_identifiers_are_unique_in_a_file() -> None:
    (one, other) = problems("* * * * * a\n* * * * * b\n0 * * * * a\n@daily c ?id=b")
    assert (one.line, other.line) == (3, 4)
    assert "'a' is that of line 1" in one.message
    assert "'b' is that of line 2" in other.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidCrontab, match="none: cannot be read: No such file"):
        read_crontab(tmp_path / "none")
    with pytest.raises(InvalidCrontab, match="cannot be read"):
        read_crontab(tmp_path)
    (tmp_path / "latin1").write_bytes(b"# caf\xe9")
    with pytest.raises(InvalidCrontab, match="expected UTF-8, byte 6 is not"):
        read_crontab(tmp_path / "latin1")


@pytest.mark.parametrize(
    ("line", "extensions"),
    [
        ("0-5,*/7 1 2 3 7 a ?id=b {c: 1}", ()),
        ("* * * * mon,2-fri a", ("the name mon", "the name fri")),
        ("1-9/2 1-9/2 * * * a", ("a step on a range",)),
        ("@hourly a ?tz=Europe/Paris", ("@hourly", "the option tz")),
        ("* * * * * a ?tz=UTC", ("the option tz",)),
    ],
)
def test_what_is_not_for_node_is_known(line: str, extensions: tuple[str, ...]) -> None:
    assert item(line).extensions == extensions


# Items in Python


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"task": ""}, "task: expected 1 to 128"),
        ({"task": 5}, "task: expected a str"),
        ({"identifier": ""}, "identifier: expected 1 to 512"),
        ({"identifier": None}, "identifier: expected a str"),
        ({"backfill": 5}, "backfill: expected a timedelta"),
        ({"backfill": timedelta(-1)}, "backfill: expected a timedelta of zero or more"),
        ({"tz": "Nowhere"}, "tz: expected a time zone"),
        ({"tz": 5}, "tz: expected a time zone"),
        ({"max_attempts": 0}, "max_attempts: expected 1"),
        ({"priority": 99999}, "priority: expected -32768"),
        ({"queue_name": "q" * 129}, "queue_name: expected 0 to 128"),
        ({"job_key": ""}, "job_key: expected 1 to 512"),
        ({"job_key": "k", "job_key_mode": "unsafe_dedupe"}, "job_key_mode: expected one of"),
        ({"payload": [1]}, "payload: expected an object"),
        ({"payload": {"a": float("nan")}}, "payload.a: nan"),
        ({"pattern": 5}, "pattern: expected a str"),
    ],
)
def test_what_items_cannot_be(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidCrontab, match=re.escape(says)):
        CronItem(**{"pattern": "* * * * *", "task": "task", **arguments})


def test_a_payload_may_be_what_converts_to_an_object() -> None:
    @attrs.frozen
    class Report:
        to: str

    found = json.loads(CronItem("@daily", "a", Report("all")).payload_at(MIDNIGHT, backfilled=False))
    assert found == {"to": "all", "_cron": {"ts": "2024-01-01T00:00:00.000Z", "backfilled": False}}


def test_a_system_without_time_zones_says_what_to_install() -> None:
    code = """
import sys
sys.modules["tzdata"] = None
from graphile_worker_py import CronItem
CronItem("@daily", "a", tz="UTC")
CronItem("@daily", "a", tz="Europe/Paris")
"""
    nowhere = {"PYTHONTZPATH": "", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=nowhere)
    assert done.returncode == 1
    assert done.stderr.endswith("this system has no time zones: pip install tzdata\n")


def test_the_aliases_are_what_they_stand_for() -> None:
    for alias, text in ALIASES.items():
        assert read_pattern(alias) == read_pattern(text)
