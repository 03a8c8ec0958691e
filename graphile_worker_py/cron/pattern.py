"""The five time fields of a crontab line, or an @alias, to a Pattern. Pure.

Node's worker reads numbers, lists, ranges of at least two values, `*` and `*/n`; `*/n` counts from the lowest value
of its field. On top we read names (mon, jan), steps on ranges (1-10/2) and @hourly to @yearly; a Pattern remembers
which of these it used, so that one can be told which lines are not for Node.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

from graphile_worker_py.errors import CrontabProblem, InvalidCrontab

# What JavaScript calls white space. Python's \s has characters more, and lacks the byte order mark.
SPACE = "\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
WORD = re.compile(f"[^{SPACE}]+")

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}

# A number, name or `*`, a range of two, and a step; what does not fit the field is found afterwards.
_PART = re.compile(r"(?:(?P<star>\*)|(?P<low>[0-9]+|[a-z]+)(?:-(?P<high>[0-9]+|[a-z]+))?)(?:/(?P<step>[0-9]+))?", re.I)


@attrs.frozen
class Mistake(Exception):
    """What was expected at a position of the text that is read, from 0; it becomes a problem with a place."""

    position: int
    message: str


@attrs.frozen
class _Field:
    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()


_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 6, _WEEKDAYS),
)
_WEEKDAY = FIELDS[-1]


@attrs.frozen
class Pattern:
    """When an item is due: the values of each field in ascending order, weekdays from 0 for Sunday.

    `text` is what was written, and `extensions` what of it Node's worker does not read; both do not count when two
    patterns are compared.
    """

    minutes: tuple[int, ...] = attrs.field(repr=False)
    hours: tuple[int, ...] = attrs.field(repr=False)
    dates: tuple[int, ...] = attrs.field(repr=False)
    months: tuple[int, ...] = attrs.field(repr=False)
    weekdays: tuple[int, ...] = attrs.field(repr=False)
    text: str = attrs.field(default="", eq=False)
    extensions: tuple[str, ...] = attrs.field(default=(), eq=False, repr=False)

    def __str__(self) -> str:
        return self.text


def read_pattern(text: object) -> Pattern:
    """Return the pattern of a text such as `0 4 * * mon-fri` or `@daily`; raise InvalidCrontab with all mistakes."""
    if not isinstance(text, str):
        raise InvalidCrontab(f"pattern: expected a str such as '0 4 * * *', got {type(text).__name__}")
    mistakes: list[Mistake] = []
    words = [(word.start(), word[0]) for word in WORD.finditer(text)]
    if len(words) != (1 if text.strip().startswith("@") else len(FIELDS)):
        mistakes = [Mistake(len(text), "expected five time fields, such as 0 4 * * *, or an alias such as @daily")]
    pattern = None if mistakes else pattern_of(words, mistakes)
    if pattern is None:
        problems = [CrontabProblem("pattern", 1, mistake.position + 1, mistake.message, text) for mistake in mistakes]
        raise InvalidCrontab("\n".join(map(str, problems)), problems)
    return pattern


def pattern_of(words: list[tuple[int, str]], mistakes: list[Mistake]) -> Pattern | None:
    """Return the pattern of five words, or one that is an alias, each with its position; add mistakes to the list."""
    text = " ".join(word for _, word in words)
    if len(words) == 1:
        return _alias(*words[0], mistakes)
    extensions: list[str] = []
    values: list[tuple[int, ...]] = []
    before = len(mistakes)
    for field, (position, word) in zip(FIELDS, words, strict=True):
        found: set[int] = set()
        for part in re.finditer(r"(?:^|(?<=,))[^,]*", word):
            try:
                found.update(_values(field, part[0], extensions))
            except Mistake as mistake:
                place = position + part.start() + mistake.position
                mistakes.append(Mistake(place, f"{field.name}: {mistake.message}"))
        values.append(tuple(sorted(found)))
    if len(mistakes) > before:
        return None
    minutes, hours, dates, months, weekdays = values
    return Pattern(minutes, hours, dates, months, weekdays, text=text, extensions=tuple(dict.fromkeys(extensions)))


def _alias(position: int, word: str, mistakes: list[Mistake]) -> Pattern | None:
    if word not in ALIASES:
        mistakes.append(Mistake(position, f"expected one of {', '.join(ALIASES)}"))
        return None
    pattern = pattern_of([(0, field) for field in ALIASES[word].split()], mistakes)
    return pattern and attrs.evolve(pattern, text=word, extensions=(word,))


def _values(field: _Field, part: str, extensions: list[str]) -> Iterator[int]:
    """Return the values of one entry of a list, such as `*/5` or `fri-sun`; raise Mistake."""
    found = _PART.fullmatch(part)
    if found is None:
        raise Mistake(0, f"expected a number, a range such as 1-5, * or */5, got {part[:20]!r}")
    step = _number(found["step"] or "1")
    if step == 0:
        raise Mistake(found.start("step"), "a step must be at least 1")
    if found["star"]:
        return iter(range(field.lowest, field.highest + 1, step))
    low = _value(field, found["low"], 0)
    high = low
    if found["high"] is not None:
        high = _value(field, found["high"], found.start("high"))
        if field is _WEEKDAY and found["high"].lower() == "sun" and low > 0:
            high = 7  # fri-sun ends a week, it does not begin one
        if high <= low:
            raise Mistake(0, f"a range must end later than it begins, got {part[:20]}")
        if found["step"]:
            extensions.append("a step on a range")
    elif found["step"]:
        raise Mistake(found.start("step") - 1, f"a step needs a range or *, such as {low}-{field.highest}/{step}")
    extensions += [f"the name {name}" for name in (found["low"], found["high"]) if name and name.isalpha()]
    return (value % 7 if field is _WEEKDAY else value for value in range(low, high + 1, step))


def _value(field: _Field, text: str, position: int) -> int:
    if not text.isdigit():
        if text.lower() not in field.names:
            expected = f"one of {', '.join(field.names)}, or a number" if field.names else "a number"
            raise Mistake(position, f"expected {expected}, got {text[:20]!r}")
        return field.names.index(text.lower()) + field.lowest
    value = _number(text)
    highest = 7 if field is _WEEKDAY else field.highest  # Sunday is 0, and 7 too
    if not field.lowest <= value <= highest:
        raise Mistake(position, f"expected {field.lowest} to {highest}, got {text[:20]}")
    return value


def _number(digits: str) -> int:
    """Return the number of any count of digits; what is far beyond every field comes back as a million."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) < 7 else 1_000_000
