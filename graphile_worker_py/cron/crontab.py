"""Crontab text to items. Pure but for the time zone database, which is read from files.

The grammar is that of Node's worker, white space as JavaScript sees it included: five time fields, a task, then
perhaps ` ?options` in the syntax of a query string, then perhaps ` {payload}` in JSON5. On top come what pattern.py
says, and the option tz. We refuse what Node reads but no database takes (max=0, an empty jobKey, too long a name),
and what JSON has no words for (NaN, infinities).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone, tzinfo
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import attrs

from graphile_worker_py import _payload
from graphile_worker_py.checks import check_integer, check_text
from graphile_worker_py.cron.pattern import WORD, Mistake, Pattern, pattern_of, read_pattern
from graphile_worker_py.errors import CrontabProblem, InvalidCrontab, InvalidJobSpec
from graphile_worker_py.jobs import JobSpec

LONGEST_IDENTIFIER = 512
_TASK = re.compile(r"[_a-zA-Z][_a-zA-Z0-9:/-]*")
_IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9-]*")
_PERIOD = re.compile(r"([0-9]+)([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MODES = ("replace", "preserve_run_at")


def find_zone(zone: str | tzinfo | None) -> tzinfo:
    """Return the time zone of an IANA name, UTC for None; raise InvalidCrontab where there is none."""
    if isinstance(zone, tzinfo):
        return zone
    if zone is None or zone == "UTC":
        return timezone.utc  # which needs no files
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(zone)
    except (KeyError, ValueError, OSError, TypeError, AttributeError):
        name = repr(zone)[:60]
        if not zoneinfo.available_timezones():
            message = f"tz: {name} cannot be found, for this system has no time zones: pip install tzdata"
        else:
            message = f"tz: expected a time zone of the IANA database, such as Europe/Paris, got {name}"
        raise InvalidCrontab(message) from None


def _payload_head(payload: object) -> str:
    """Return a payload as JSON text up to the place where `_cron` goes; it wins over a key of that name."""
    if payload is None:
        return "{"
    text = _payload.encode(payload)
    if not text.startswith("{"):
        raise InvalidJobSpec("payload: expected an object (a dict or the like), for _cron is added to it")
    if '"_cron"' in text:
        text = _payload.encode({key: value for key, value in json.loads(text).items() if key != "_cron"})
    return text[:-1] + ("," if text != "{}" else "")


def _pattern(value: str | Pattern) -> Pattern:
    return value if isinstance(value, Pattern) else read_pattern(value)


@attrs.frozen
class CronItem:
    """A task, and when to add a job for it: `CronItem("0 4 * * *", "report", {"to": "all"}, backfill=timedelta(1))`.

    pattern: five fields as in a crontab, or an alias such as "@daily". payload: None, or what becomes a JSON object.
    identifier: what the whole fleet, Node's workers included, knows the item by; the task's unless given. backfill: how
    late a run may be made up for after a standstill. tz: the zone the pattern means, a name or a tzinfo; UTC unless
    given. origin and extensions are set for those from a file: the line, and what of it Node's worker does not read.
    The rest are those of add_job. Raises InvalidCrontab.
    """

    pattern: Pattern = attrs.field(converter=_pattern)
    task: str
    payload: Any = attrs.field(default=None, repr=False, eq=False)
    identifier: str = attrs.field(kw_only=True, default=attrs.Factory(lambda item: item.task, takes_self=True))
    backfill: timedelta = attrs.field(kw_only=True, default=timedelta(0))
    tz: tzinfo = attrs.field(kw_only=True, default=None, converter=find_zone)
    queue_name: str | None = attrs.field(kw_only=True, default=None)
    priority: int | None = attrs.field(kw_only=True, default=None)
    max_attempts: int | None = attrs.field(kw_only=True, default=None)
    job_key: str | None = attrs.field(kw_only=True, default=None)
    job_key_mode: str | None = attrs.field(kw_only=True, default=None)
    origin: str = attrs.field(kw_only=True, default="", eq=False, repr=False)
    extensions: tuple[str, ...] = attrs.field(kw_only=True, default=(), eq=False, repr=False)
    spec: JobSpec = attrs.field(init=False, eq=False, repr=False)
    payload_head: str = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        try:
            check_text("task", self.task, shortest=1, longest=128)
            check_text("identifier", self.identifier, shortest=1, longest=LONGEST_IDENTIFIER)
            if not isinstance(self.backfill, timedelta) or self.backfill < timedelta(0):
                raise InvalidJobSpec(f"backfill: expected a timedelta of zero or more, got {self.backfill!r:.40}")
            if self.job_key_mode is not None and self.job_key_mode not in _MODES:
                raise InvalidJobSpec(f"job_key_mode: expected one of {', '.join(_MODES)}")
            spec = JobSpec(
                self.task,
                queue_name=self.queue_name,
                priority=self.priority,
                max_attempts=self.max_attempts,
                job_key=self.job_key,
            )
            head = _payload_head(self.payload)
        except InvalidJobSpec as error:
            raise InvalidCrontab(str(error)) from error
        object.__setattr__(self, "spec", spec)
        object.__setattr__(self, "payload_head", head)

    def payload_at(self, ts: datetime, *, backfilled: bool) -> str:
        """Return the payload of the job for one minute as JSON text, `_cron` included as Node's worker writes it."""
        moment = ts.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return f'{self.payload_head}"_cron":{{"ts":"{moment}","backfilled":{"true" if backfilled else "false"}}}}}'


def check_identifiers(items: Iterable[CronItem]) -> list[CronItem]:
    """Return the items in their order; raise InvalidCrontab where two have one identifier."""
    seen: dict[str, CronItem] = {}
    doubles = []
    for item in items:
        if not isinstance(item, CronItem):
            raise InvalidCrontab(f"crontab: expected CronItem objects, got {type(item).__name__}")
        if (first := seen.setdefault(item.identifier, item)) is not item:
            where = f" ({first.origin} and {item.origin})" if first.origin and item.origin else ""
            doubles.append(
                f"two items have the identifier {item.identifier!r}{where}: give one another, with ?id=... in a crontab"
            )
    if doubles:
        raise InvalidCrontab("\n".join(doubles))
    return list(seen.values())


def read_crontab(path: str | PathLike[str]) -> list[CronItem]:
    """Return the items of a file; raise InvalidCrontab with all that is wrong in it, or with why it cannot be read."""
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        raise InvalidCrontab(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidCrontab(f"{path}: expected UTF-8, byte {error.start + 1} is not") from error
    return parse_crontab(text, file=str(path))


def parse_crontab(text: str, *, file: str = "crontab") -> list[CronItem]:
    """Return the items of a crontab's text in order; raise InvalidCrontab with all that is wrong in it."""
    items: dict[str, tuple[int, CronItem]] = {}
    problems: list[CrontabProblem] = []
    for number, line in enumerate(re.split(r"\r?\n", text), start=1):
        mistakes: list[Mistake] = []
        item = _item(line, mistakes, origin=f"{file}:{number}")
        if item is not None:
            first, _ = items.setdefault(item.identifier, (number, item))
            if first != number:
                message = (
                    f"the identifier {item.identifier!r} is that of line {first} already: give one of them ?id=..."
                )
                mistakes = [Mistake(_end(line) - 1, message)]
        shown = _masked(line) if mistakes else ""
        problems += [
            CrontabProblem(file, number, mistake.position + 1, mistake.message, shown)
            for mistake in sorted(mistakes, key=lambda mistake: mistake.position)
        ]
    if problems:
        raise InvalidCrontab("\n".join(map(str, problems)), problems)
    return [item for _, item in items.values()]


def _item(line: str, mistakes: list[Mistake], *, origin: str) -> CronItem | None:
    """Return the item of a line, or None for a line without one or with mistakes, which are added to the list."""
    words = [(word.start(), word[0]) for word in WORD.finditer(line)]
    if not words or words[0][1].startswith("#"):
        return None
    count = 1 if words[0][1].startswith("@") else 5
    if len(words) <= count:
        expected = "an alias and a task" if count == 1 else "five time fields and a task, such as 0 4 * * * report"
        mistakes.append(Mistake(_end(line), f"expected {expected}, and here the line ends"))
        return None
    pattern = pattern_of(words[:count], mistakes)
    try:
        task, options, payload = _command(line, words[count][0])
    except Mistake as mistake:
        mistakes.append(mistake)
        return None
    given = _options(*options, mistakes)
    content = _read_payload(*payload, mistakes)
    if mistakes or pattern is None:
        return None
    try:
        extensions = (*pattern.extensions, *(["the option tz"] if "tz" in given else []))
        return CronItem(pattern, task, content, origin=origin, extensions=extensions, **given)
    except InvalidCrontab as error:
        position = payload[0] if str(error).startswith("payload") else words[count][0]
        mistakes.append(Mistake(position, str(error)))
        return None


def _command(line: str, start: int) -> tuple[str, tuple[int, str], tuple[int, str]]:
    """Cut a command into the task, the options and the payload, the latter two with their positions; raise Mistake."""
    if broken := re.compile("[\r\u2028\u2029]").search(line[: _end(line)], start):
        raise Mistake(broken.start(), "expected all on one line, and here is a line separator")
    task = _TASK.match(line, start)
    if task is None:
        raise Mistake(start, "expected the name of a task: letters, digits and _ : / -, a letter or _ first")
    place = _after_space(line, task.end(), "the name of the task to go on with a letter, digit or _ : / -, or to end")
    options = (place, "")
    if line.startswith("?", place):
        found = WORD.match(line, place)
        if found is None or len(found[0]) == 1:
            raise Mistake(place + 1, "expected options, such as ?id=nightly&fill=1d")
        options = (place + 1, found[0][1:])
        place = _after_space(line, found.end(), "white space after the options")
    payload = (place, line[place : _end(line)])
    if payload[1] and not payload[1].startswith("{"):
        raise Mistake(place, "expected ?options, then a payload in {...}, or the end of the line")
    if payload[1] and (len(payload[1]) < 2 or not payload[1].endswith("}")):
        raise Mistake(_end(line) - 1, "expected the payload to end with }, as the last character of the line")
    return task[0], options, payload


def _end(line: str) -> int:
    """Return where a line ends, white space at its end not counted."""
    return max((word.end() for word in WORD.finditer(line)), default=0)


def _after_space(line: str, position: int, expected: str) -> int:
    """Return where the next word begins; raise Mistake if it is not set off by white space."""
    if position >= _end(line):
        return _end(line)
    word = WORD.search(line, position)
    if word is None or word.start() == position:
        raise Mistake(position, f"expected {expected}")
    return word.start()


def _options(position: int, text: str, mistakes: list[Mistake]) -> dict[str, Any]:
    """Read `id=a&fill=1d` into arguments of CronItem; mistakes are added to the list."""
    given: dict[str, Any] = {}
    for part in re.finditer("[^&]+", text):
        key, _, value = (unquote_plus(half) for half in part[0].partition("="))
        place = position + part.start()
        try:
            if key not in _OPTIONS:
                raise InvalidJobSpec(f"expected one of the options {', '.join(_OPTIONS)}")
            name, read = _OPTIONS[key]
            if name in given:
                raise InvalidJobSpec(f"{key}: given twice")
            given[name] = read(value)
        except (InvalidJobSpec, InvalidCrontab) as error:
            mistakes.append(Mistake(place, str(error)))
    return given


def _read_payload(position: int, text: str, mistakes: list[Mistake]) -> Any:
    """Read a payload, as JSON if it is that, else as JSON5; a mistake is added to the list. No text, no payload."""
    if not text:
        return None
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    import json5  # takes ten milliseconds to import, and a hundred times as long as json for a text

    try:
        return json5.loads(text)
    except (ValueError, RecursionError) as error:
        column = re.search(r"at column ([0-9]+)$", str(error))
        offset = min(int(column[1]), len(text)) - 1 if column else 0
        mistakes.append(Mistake(position + offset, "payload: expected an object in JSON5, and here it stops being one"))
        return None


def _masked(line: str) -> str:
    """Return a line with the letters and digits of its payload masked, for what is secret stands in payloads."""
    start = line.find("{")
    return line if start < 0 else line[:start] + re.sub(r"\w", "x", line[start:])


def _identifier(text: str) -> str:
    if not _IDENTIFIER.fullmatch(text):
        raise InvalidJobSpec("id: expected letters, digits, _ and -, a letter or _ first")
    return check_text("id", text, longest=LONGEST_IDENTIFIER)


def _period(text: str) -> timedelta:
    parts = _PERIOD.findall(text)
    if not parts or "".join(map("".join, parts)) != text:
        raise InvalidJobSpec("fill: expected a period in s, m, h, d and w, such as 1w or 3d12h")
    try:
        return timedelta(seconds=sum(int(number) * _UNITS[unit] for number, unit in parts))
    except (OverflowError, ValueError):
        raise InvalidJobSpec("fill: that is longer than time goes; use a shorter period") from None


def _queue_name(text: str) -> str:
    if not re.fullmatch("[-a-zA-Z0-9_:]+", text):
        raise InvalidJobSpec("queue: expected letters, digits, - _ and :")
    return check_text("queue", text, longest=128)


def _integer(name: str, pattern: str, lowest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(pattern, text) or len(text) > 4000:
            raise InvalidJobSpec(f"{name}: expected a whole number")
        return check_integer(name, int(text), lowest=lowest, highest=32767)

    return read


def _mode(text: str) -> str:
    if text not in _MODES:
        raise InvalidJobSpec(f"jobKeyMode: expected {' or '.join(_MODES)}")
    return text


# In a file, and in Python; a value is what the query string says, decoded.
_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "id": ("identifier", _identifier),
    "fill": ("backfill", _period),
    "max": ("max_attempts", _integer("max", "[0-9]+", 1)),
    "queue": ("queue_name", _queue_name),
    "jobKey": ("job_key", lambda text: check_text("jobKey", text, shortest=1, longest=512)),
    "jobKeyMode": ("job_key_mode", _mode),
    "priority": ("priority", _integer("priority", "-?[0-9]+", -32768)),
    "tz": ("tz", find_zone),
}
