"""Settings of `run` from a file and from the environment; click puts them together, the option being the strongest.

The file is ./graphile-worker-py.toml, or the table [tool.graphile-worker-py] of ./pyproject.toml where the first is
missing, or the one of --config. Its keys are the names of the options; what it holds becomes click's default_map. Each
option has a variable, GRAPHILE_WORKER_ and its name. Three had variables before there was a file, which are read where
the code names nothing; they go before the file too, so that one for development does no harm in production.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import click
from click.core import ParameterSource
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from graphile_worker_py.cli._parent import Parent

OWN_FILE, PROJECT_FILE, TABLE = "graphile-worker-py.toml", "pyproject.toml", "graphile-worker-py"
PREFIX = "GRAPHILE_WORKER_"
VARIABLES = {"database": "DATABASE_URL", "schema": f"{PREFIX}SCHEMA", "listen": f"{PREFIX}LISTEN"}
SECRETS = ("password", "sslpassword", "oauth_client_secret")
MASK = "***"


# What a setting may be in a file, by the type of its option; others are strings.
EXPECTED: tuple[tuple[type[Any], str, tuple[type, ...]], ...] = (
    (click.types.BoolParamType, "true or false", (bool,)),
    (click.types.FloatParamType, "a number", (int, float)),
    (click.types.IntParamType, "a whole number", (int,)),
)
TOML: dict[type, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "a table",
}


@attrs.define
class Origins:
    """Where the settings of one command come from; kept in click's context.

    file: the one that was read, `found` what it held; in a child, `parent` has handed both down. variables: those that
    went before it. program: those of a program that runs the command, which no file can change. values: as the types
    made them, before callbacks.
    """

    parent: Parent | None = None
    file: str | None = None
    found: dict[str, Any] = attrs.Factory(dict)
    variables: dict[str, str] = attrs.Factory(dict)
    values: dict[str, Any] = attrs.Factory(dict)
    program: dict[str, Any] = attrs.Factory(dict)

    @staticmethod
    def of(context: click.Context) -> Origins:
        """Return those of a context."""
        origins: Origins = context.meta.setdefault(__name__, Origins())
        return origins


class _Setting(click.Parameter):
    """A parameter that may stand in a file: an error names the place that its value came from."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        converted = super().type_cast_value(ctx, value)
        Origins.of(ctx).values[str(self.name)] = converted
        return converted

    def get_error_hint(self, ctx: click.Context | None) -> str:
        usual = super().get_error_hint(ctx) if ctx else repr(self.name)
        source = ctx and ctx.get_parameter_source(str(self.name))
        if ctx is None or source not in (ParameterSource.DEFAULT_MAP, ParameterSource.ENVIRONMENT):
            return usual
        return f"'{key_of(self)}' ({source_of(self, ctx)})"


class Setting(_Setting, click.Option):
    """An option that may stand in a file."""


class AddressSetting(Setting):
    """A port or HOST:PORT; the first may be a number in a file."""


class SettingArgument(_Setting, click.Argument):
    """An argument that may stand in a file."""


def key_of(parameter: click.Parameter) -> str:
    """Return the name of a setting, as it stands in a file."""
    return str(parameter.name).replace("_", "-")


def source_of(parameter: click.Parameter, context: click.Context) -> str:
    """Return where the value of a setting comes from, in a few words."""
    origins, name = Origins.of(context), str(parameter.name)
    source = context.get_parameter_source(name)
    if source is ParameterSource.ENVIRONMENT:
        return f"environment: {parameter.envvar or PREFIX + name.upper()}"
    if source is ParameterSource.DEFAULT_MAP:
        if name in origins.program:
            return "settings"
        return f"environment: {origins.variables[name]}" if name in origins.variables else str(origins.file)
    return "command line" if source is ParameterSource.COMMANDLINE else "default"


# Reading a file.


def read_file(context: click.Context, parameter: click.Parameter, path: str | None) -> None:
    """Let click look for settings in a file, if there is one; raise click.UsageError for what is wrong in it."""
    origins = Origins.of(context)
    origins.parent = Parent.of_environment()
    if origins.parent is not None and origins.parent.found is not None:
        origins.file, origins.found = origins.parent.file, origins.parent.found
    else:
        origins.file, table = _find(path)
        known = {key_of(one): one for one in context.command.params if isinstance(one, _Setting)}
        for key, value in table.items():
            if problem := _problem(key, value, known):
                raise click.UsageError(f"{origins.file}: {problem}")
        origins.found = {str(known[key].name): value for key, value in table.items()}
    for name in origins.found.keys() & VARIABLES.keys():
        if os.environ.get(VARIABLES[name]):
            origins.variables[name] = VARIABLES[name]
    overridden = {name: os.environ[variable] for name, variable in origins.variables.items()}
    origins.program = dict(context.default_map or {})
    context.default_map = origins.found | overridden | origins.program


def _find(path: str | None) -> tuple[str | None, dict[str, Any]]:
    """Return the file that counts, and its settings."""
    if path is not None:
        table = _table(path) if Path(path).name == PROJECT_FILE else _toml(path)
        if table is None:
            raise click.UsageError(f"{path}: there is no table [tool.{TABLE}] in it")
        return path, table
    if os.path.isfile(OWN_FILE):
        return OWN_FILE, _toml(OWN_FILE)
    table = _table(PROJECT_FILE) if os.path.isfile(PROJECT_FILE) else None
    return (None, {}) if table is None else (PROJECT_FILE, table)


def _table(path: str) -> dict[str, Any] | None:
    tools = _toml(path).get("tool", {})
    for name in tools if isinstance(tools, dict) else ():
        if name != TABLE and name.lower().replace("_", "-") in (TABLE, "graphile-worker"):
            raise click.UsageError(f"{path}: the table [tool.{name}] is called [tool.{TABLE}]")
    table = tools.get(TABLE) if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise click.UsageError(f"{path}: {TABLE} is no table: write [tool.{TABLE}], and settings below it")
    return table


def _toml(path: str) -> dict[str, Any]:
    tomllib = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        with open(path, "rb") as file:
            table: dict[str, Any] = tomllib.load(file)
            return table
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{path}: not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"{path} is not TOML: {error}") from None


def _problem(key: str, value: object, known: dict[str, _Setting]) -> str | None:
    parameter = known.get(key)
    if parameter is None:
        return f"there is no setting {key!r}{_hint(key, known)}"
    expected, fits = _expected(parameter)
    return None if fits(value) else f"{key}: expected {expected}, got {_kind(value)}"


def _hint(key: str, known: dict[str, _Setting]) -> str:
    if key == "tool":
        return f"; a table [tool.{TABLE}] is for {PROJECT_FILE}, here the keys stand alone"
    close = difflib.get_close_matches(key.lower().replace("_", "-"), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(known))}"


def _expected(parameter: _Setting) -> tuple[str, Callable[[object], bool]]:
    if getattr(parameter, "multiple", False):
        return "a list of strings", lambda value: isinstance(value, list) and all(isinstance(x, str) for x in value)
    words: str = "a string"
    kinds: tuple[type, ...] = (str,)
    if isinstance(parameter, AddressSetting):
        words, kinds = "a port, or a string such as '127.0.0.1:8080'", (int, str)
    for kind, said, types in EXPECTED:
        if isinstance(parameter.type, kind):
            words, kinds = said, types
    return words, lambda value: isinstance(value, kinds) and (isinstance(value, bool) == (kinds == (bool,)))


def _kind(value: object) -> str:
    return next((words for kind, words in TOML.items() if isinstance(value, kind)), "a date or a time")


def misspelt(context: click.Context) -> Iterator[str]:
    """Yield what is to be said of variables that look like a setting's, and are none."""
    names = [str(one.name).upper() for one in context.command.params]
    known = {name: VARIABLES.get(name.lower(), PREFIX + name) for name in names} | {"DATABASE_URL": "DATABASE_URL"}
    for name in sorted(os.environ.keys() - known.values()):
        close = difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1, cutoff=0.85)
        if name.startswith(PREFIX) and close:
            yield f"the variable {name} is not heeded: did you mean {known[close[0]]}?"


# Showing what came of it.


def as_toml(context: click.Context) -> str:
    """Return all settings as TOML that could be pasted into a file, with a comment on each; passwords are masked."""
    values = Origins.of(context).values
    shown = [one for one in context.command.params if isinstance(one, _Setting)]
    lines = [f"# For {PROJECT_FILE} put [tool.{TABLE}] before these lines; {OWN_FILE} holds them alone."]
    for one in shown:
        value = values.get(str(one.name))
        if isinstance(value, (str, int, float, tuple, list)):
            lines.append(f"{key_of(one)} = {_toml_value(one, value)}  # {source_of(one, context)}")
        else:
            lines.append(f"# {key_of(one)} is not set{_else(one)}")
    return "\n".join(lines)


def _toml_value(parameter: click.Parameter, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_toml_value(parameter, one) for one in value)}]"
    if not isinstance(value, str):
        return str(value)
    text = json.dumps(masked(value) if parameter.name in ("database", "listen") else value, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f").encode("utf-8", "replace").decode()


def masked(conninfo: str) -> str:
    """Return a connection string without its secrets; as it is, if it has none, as the word off has."""
    if conninfo == "off":
        return conninfo
    try:
        named = conninfo_to_dict(conninfo)
    except (ProgrammingError, UnicodeEncodeError):
        return MASK  # nobody knows where a password is in it
    if any("@" in str(named.get(name) or "") for name in ("host", "port", "dbname")):
        return MASK  # of a password with an @ in it, or a /
    if not named.keys() & SECRETS:
        return conninfo
    return make_conninfo("", **{name: MASK if name in SECRETS else value for name, value in named.items()})


def _else(parameter: click.Parameter) -> str:
    variable = VARIABLES.get(str(parameter.name))
    if variable is None:
        return ""
    said = os.environ.get(variable)
    now = f", which is {_toml_value(parameter, said)} now" if said else ""
    return f": as the queue says, or else {variable}{now}"
