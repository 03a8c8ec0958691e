"""How commands show what they found: tables for people, lines for pipes, JSON for programs; and ask before a change.

On a terminal a table is drawn by rich, its long texts cut to what the line has room for; where even that is too
narrow, each row becomes a few lines, a name and a value on each. Into a pipe goes one line for each row, in columns,
and nothing is cut. With --json it is one JSON object for each thing, each on a line of its own, in ASCII; times are ISO
8601 in UTC, lengths of time are seconds.

What comes from the database is somebody else's text. Control characters in it are shown as escapes, so that it cannot
play with the terminal, and nothing in it is read as markup. rich is imported for a terminal only: `add` is quick.
"""

from __future__ import annotations

import enum
import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import attrs
import click

GAP = 2  # spaces between columns
SHORTEST_CUT = 16  # a long text with less room than that is not worth its column

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a line, for programs, in place of a table."
)


@attrs.frozen
class Column:
    """A column of a table: its title, and what of a thing stands in it.

    `long`: the texts may be cut on a terminal. `unless`: where all things have this, a terminal does without the
    column. `style`: what rich calls the look of a thing's cell, "red" say.
    """

    title: str
    of: Callable[[Any], object]
    long: bool = attrs.field(default=False, kw_only=True)
    unless: object = attrs.field(default=..., kw_only=True)
    style: Callable[[Any], str] = attrs.field(default=lambda thing: "", kw_only=True)


@attrs.frozen
class RawJson:
    """JSON text from the database, to be passed on as it is, digit for digit."""

    text: str

    def in_ascii(self) -> str:
        """Return the text on one line, without a character that a terminal or a reader of lines could take amiss."""
        compact = re.sub(r'("(?:[^"\\]|\\.)*")|\s+', lambda found: found[1] or "", self.text)
        return re.sub(r"[^ -~]", lambda found: json.dumps(found[0])[1:-1], compact)


def show(things: Iterable[Any], columns: Sequence[Column], *, as_json: bool) -> None:
    """Print a table of things, one to a row, or with `as_json` each of them, an attrs object, as JSON."""
    if as_json:
        for thing in things:
            show_json(thing)
        return
    shown = list(things)
    if is_terminal():
        columns = [column for column in columns if any(column.of(thing) != column.unless for thing in shown)]
    rows = [[text_of(column.of(thing)) for column in columns] for thing in shown]
    if not rows:
        return
    if not is_terminal():
        _write(_lines(columns, rows, _to_the_right(columns, shown)))
    elif (room := _room_for_long(columns, rows)) is None:
        _write(_drawn(*(_fields_drawn([*zip(_titles(columns), row, strict=True)]) for row in rows)))
    else:
        _write(_drawn(_table_drawn(columns, shown, room=room)))


def show_fields(fields: Mapping[str, object]) -> None:
    """Print one thing, a name and a value to a line; a text of several lines stays one, indented."""
    pairs = [(name, text_of(value, lines=True)) for name, value in fields.items()]
    if is_terminal():
        _write(_drawn(_fields_drawn(pairs)))
        return
    width = max(map(_width, fields)) + GAP
    lines = (f"{_filled(name, width)}{value}".replace("\n", "\n" + " " * width) for name, value in pairs)
    _write("".join(f"{line.rstrip()}\n" for line in lines))


def show_json(thing: Any) -> None:
    """Print an attrs object or a mapping as one JSON object on one line."""
    fields = _fields_of(thing) if attrs.has(type(thing)) else thing
    parts = (f"{json.dumps(name)}: {_json_of(value)}" for name, value in fields.items())
    _write(f"{{{', '.join(parts)}}}\n")


def say(text: str) -> None:
    """Print a sentence about what was done; control characters in it are shown as escapes."""
    _write(f"{safe(text)}\n")


def show_text(text: str, *, head: str = "", style: str = "", indent: int = 0, wrap: bool = True) -> None:
    """Print text after a head of that style; on a terminal in lines that fit it, unless it is to be copied whole."""
    if not (wrap and is_terminal()):
        _write(f"{' ' * indent}{head}{safe(text)}\n")
        return
    from rich.padding import Padding
    from rich.text import Text

    _write(_drawn(Padding(Text.assemble((head, style), safe(text)), (0, 0, 0, indent))))


def note(text: str) -> None:
    """Print a sentence beside what was asked for, to standard error, so that no reader of the output meets it."""
    click.echo(safe(text), err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal whether to go on, unless `yes`; raise click.UsageError where nobody can be asked."""
    if yes:
        return
    if not (_is_terminal(sys.stdin) and _is_terminal(sys.stderr)):
        raise click.UsageError(f"{safe(question)} Nobody can be asked without a terminal: add --yes to go on")
    try:
        agreed = click.confirm(safe(question), err=True)
    except click.Abort:
        click.echo(err=True)  # ends the line of the question
        raise
    if not agreed:
        raise click.ClickException("nothing was changed")


def counted(number: int, thing: str) -> str:
    """Return a number with what is counted: 1 job, 2,000 jobs."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def at_least(number: int, *, exact: bool) -> int | str:
    """Return a number, with a + where it was not counted to the end."""
    return number if exact else f"{number}+"


def is_terminal() -> bool:
    """Return whether people read standard output, on a terminal."""
    return _is_terminal(sys.stdout)


def text_of(value: object, *, lines: bool = False) -> str:
    """Return a value as people read it, in one line unless `lines` may be several; - stands for None."""
    if value is None:
        return "-"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(text_of, value)) or "-"
    for kind, shown in SHOWN:
        if isinstance(value, kind):
            return shown(value)
    text = str(value)
    return "\n".join(map(safe, text.split("\n"))) if lines and text else safe(text) or '""'


def waited(seconds: float | None) -> timedelta | None:
    """Return an age in seconds as a length of time."""
    return None if seconds is None else timedelta(seconds=seconds)


def first_line(error: str | None) -> str | None:
    """Return the first line of an error in which something stands, for a table."""
    return None if error is None else error.strip().split("\n", 1)[0]


def lasting(time: timedelta) -> str:
    """Return a length of time by its two largest units, as options take it: 3.2s, 5m10s, 3h12m, 4d3h."""
    seconds = time.total_seconds()
    if abs(seconds) < 60:
        return f"{seconds:.3f}s" if 0 < abs(seconds) < 0.1 else f"{seconds:.1f}s"
    minutes, seconds = divmod(round(abs(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")]
    first = next(place for place, (number, _) in enumerate(units) if number)
    sign = "-" if time < timedelta(0) else ""
    return sign + "".join(f"{number}{unit}" for number, unit in units[first : first + 2] if number)


def safe(text: str) -> str:
    """Return text with control characters, and others that are not to be seen, as escapes such as \\n and \\x1b."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or unicodedata.category(one) == "Zs" else _escape(one) for one in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


# The first class that fits.
SHOWN: tuple[tuple[type, Callable[[Any], str]], ...] = (
    (bool, lambda value: "yes" if value else "no"),
    (datetime, lambda value: value.astimezone(timezone.utc).isoformat(" ", "seconds").replace("+00:00", "Z")),
    (timedelta, lasting),
    (enum.Enum, lambda value: safe(str(value.value))),
)


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()


def _write(text: str) -> None:
    """Write to standard output; what its encoding lacks becomes an escape, and never an error."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False)


def _fields_of(thing: Any) -> dict[str, object]:
    return {field.name: getattr(thing, field.name) for field in attrs.fields(type(thing))}


def _json_of(value: object) -> str:
    return value.in_ascii() if isinstance(value, RawJson) else json.dumps(value, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, enum.Enum):
        return value.value
    return _fields_of(value)


def _titles(columns: Sequence[Column]) -> list[str]:
    return [column.title for column in columns]


def _to_the_right(columns: Sequence[Column], things: Sequence[Any]) -> list[bool]:
    """Return for each column whether it holds numbers, which stand to the right."""
    kinds = [{type(value) for value in map(column.of, things)} - {type(None)} for column in columns]
    return [bool(found) and found <= {int, float, timedelta} for found in kinds]


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else not unicodedata.combining(one) for one in text)


def _filled(text: str, width: int, *, right: bool = False) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(_width, texts)) for texts in zip(_titles(columns), *rows, strict=True)]


def _lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], rights: Sequence[bool]) -> str:
    widths = _widths(columns, rows)
    cells = (
        [_filled(text, width, right=right) for text, width, right in zip(row, widths, rights, strict=True)]
        for row in [_titles(columns), *rows]
    )
    return "".join(f"{(' ' * GAP).join(row).rstrip()}\n" for row in cells)


def _room_for_long(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int | None:
    """Return how wide each long column may be for the table to fit the terminal; None where it cannot."""
    widths = _widths(columns, rows)
    long = [width for column, width in zip(columns, widths, strict=True) if column.long]
    left = shutil.get_terminal_size().columns - sum(widths) + sum(long) - GAP * (len(columns) - 1)
    if not long:
        return 0 if left >= 0 else None
    room = left // len(long)
    return room if room >= min(SHORTEST_CUT, max(long)) else None


def _table_drawn(columns: Sequence[Column], things: Sequence[Any], *, room: int) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), collapse_padding=True, header_style="bold")
    for column, right in zip(columns, _to_the_right(columns, things), strict=True):
        table.add_column(
            Text(column.title),
            justify="right" if right else "left",
            no_wrap=True,
            overflow="ellipsis",
            max_width=room if column.long else None,
        )
    for thing in things:
        table.add_row(*(Text(text_of(column.of(thing)), style=column.style(thing)) for column in columns))
    return table


def _fields_drawn(pairs: Sequence[tuple[str, str]]) -> object:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(name, style="bold"), Text(value))
    return grid


def _drawn(*parts: object) -> str:
    """Return what rich draws on this terminal, the parts apart by an empty line."""
    from rich.console import Console

    width, height = shutil.get_terminal_size()  # both, or rich guesses for some terminals
    console = Console(width=width, height=height, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        for place, part in enumerate(parts):
            if place:
                console.print()
            console.print(part)
    lines = captured.get().split("\n")
    return "\n".join(line.rstrip() for line in lines)
