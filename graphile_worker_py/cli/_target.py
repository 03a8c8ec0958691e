"""What `run` works on: MODULE:ATTRIBUTE, imported from the current directory first, and what is wrong with it."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import traceback
from pathlib import Path

import click
import psycopg

from graphile_worker_py import MigrationError, Queue, Tasks
from graphile_worker_py.cli._options import NotThere

NOT_THEIRS = (f"{Path(__file__).parents[1]}{os.sep}", str(importlib.__file__), "<frozen")  # code on the way to a module


def check_target(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, str] | None:
    """Return a module's name and the path of an attribute in it; raise click.BadParameter if text is not like that."""
    if text is None:
        return None
    module, _, attribute = text.partition(":")
    if module.endswith(".py"):
        raise click.BadParameter(f"expected the name of a module, not of a file: leave out the .py of {module!r}")
    if not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        raise click.BadParameter("expected module:attribute, such as myapp.jobs:queue")
    return module, attribute


def find_queue(
    target: tuple[str, str] | None, *, database: str | None, schema: str | None, listen: str | bool | None
) -> Queue:
    """Return the queue to work on, moved where the options say; raise NotThere if the target is none."""
    if target is None:
        return Queue(database, schema=schema, listen=listen)
    module, attribute = target
    found = find(module, attribute)
    if isinstance(found, Tasks):
        queue = Queue(database, schema=schema, listen=listen)
        queue.include(found)
        return queue
    if not isinstance(found, Queue):
        raise NotThere(f"{module}:{attribute} is of type {type(found).__name__}, expected a Queue or a Tasks registry")
    if database or schema or listen is not None:
        # A schema alone moves the queue within the database it has.
        found.point_at(database or found.database.source, schema=schema, listen=listen)
    return found


def find(module: str, attribute: str) -> object:
    """Import the module and return its attribute; raise NotThere, saying which of the two could not be had and why."""
    sys.path.insert(0, os.getcwd())
    imported = load(module)
    try:
        return functools.reduce(getattr, attribute.split("."), imported)
    except AttributeError as error:
        names = [name for name, value in vars(imported).items() if isinstance(value, (Queue, Tasks))]
        hint = f"; it has {', '.join(names)}" if names else ""
        raise NotThere(f"module {module!r} has no attribute {attribute!r}{hint}") from error


def load(module: str) -> object:
    """Import a module; what it raises itself becomes NotThere, unless the exit code of the error says more."""
    try:
        return importlib.import_module(module)
    except (psycopg.Error, MigrationError):
        raise  # it looks into the database when it is imported
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise NotThere(f"there is no module {error.name!r}, here ({os.getcwd()}) or installed") from error
        raise NotThere(f"module {module!r} imports {error.name!r}, which is not there{where(error)}") from error
    except SyntaxError as error:
        place = f"{error.filename}, line {error.lineno}"
        raise NotThere(f"module {module!r} cannot be imported: {error.msg} ({place})") from error
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__}: {error}"
        raise NotThere(f"module {module!r} cannot be imported, it raised {what}{where(error)}") from error


def where(error: BaseException) -> str:
    """Return the place in somebody else's code that raised an error, in parentheses."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(NOT_THEIRS)]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
