"""`manage.py graphile_worker`: the commands of graphile-worker-py, in the database and on the tasks of this project.

What follows is read by the same code as the console script's; only what every command of Django's takes is taken out
before. What an option does not say is as the environment says, else as in the project's settings.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import pairwise
from typing import Any, ClassVar

import click
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from graphile_worker_py.cli import main
from graphile_worker_py.cli._options import ExitCode
from graphile_worker_py.contrib.django import conf
from graphile_worker_py.contrib.django.reloading import SIGNALS, run_with_reloader

TARGET = "graphile_worker_py.contrib.django.daemon:queue"
OPTION = "--database"
HELP = ("-h", "--help", "--version")
FLAGS = ("--skip-checks", "--noreload", "--traceback", "--no-color", "--force-color")
TAKEN_OUT = ("--settings", "--pythonpath", "--verbosity")  # the last says nothing here; -v is one of doctor's
# With these `run` is no lone daemon that a change of the code could start anew.
NOT_RELOADED = (*HELP, "--once", "--processes", "--reload", "--print-config")


class Command(BaseCommand):
    """Hand everything to the command line of graphile-worker-py: `run`, unless another command is named."""

    help = "Works on jobs (run, the default); adds, shows and changes them (see --help for the other commands)."
    requires_system_checks: ClassVar[list[str]] = []  # those that matter are made below

    def run_from_argv(self, argv: list[str]) -> None:
        """Do what the command line says, and exit."""
        flags, words = _split(argv[2:])
        arguments = _with_command(words) + ["--debug"] * ("--traceback" in flags)
        program = f"{os.path.basename(argv[0])} {argv[1]}"
        try:
            if "--skip-checks" not in flags and not {*HELP} & {*words}:
                self.check(tags=[conf.TAG])
            if _is_reloaded(arguments) and "--noreload" not in flags:
                run_with_reloader(lambda: _run(arguments, program))
            _run(arguments, program)
        except CommandError as error:
            self.stderr.write(str(error), lambda text: text)
            sys.exit(error.returncode)
        finally:
            connections.close_all()

    def print_help(self, prog_name: str, subcommand: str) -> None:
        """Show the commands, for `manage.py help graphile_worker`."""
        _run(["--help"], f"{os.path.basename(prog_name)} {subcommand}")

    def add_arguments(self, parser: Any) -> None:
        """Take whatever there is, for call_command()."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *_: Any, arguments: list[str], **options: Any) -> None:
        """Run a command for call_command(); raise CommandError, with the exit code, unless that is 0."""
        out, err = (options.get(name) or getattr(sys, name) for name in ("stdout", "stderr"))
        try:
            with redirect_stdout(out), redirect_stderr(err), _signals_as_before():
                _run(_with_command(arguments), "manage.py graphile_worker")
        except SystemExit as end:
            if end.code:
                raise CommandError(f"it ended with exit code {end.code}", returncode=end.code) from None


@contextmanager
def _signals_as_before() -> Iterator[None]:
    """Undo what a worker does with signals, since the process goes on after it."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _split(words: Iterable[str]) -> tuple[set[str], list[str]]:
    """Return the flags that are Django's, and all that is not Django's."""
    flags: set[str] = set()
    rest: list[str] = []
    words = iter(words)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in FLAGS:
            flags.add(word)
        elif word in TAKEN_OUT:
            next(words, None)
        elif not word.startswith(tuple(f"{name}=" for name in TAKEN_OUT)):
            rest.append(word)
    return flags, rest


def _with_command(words: list[str]) -> list[str]:
    """Return arguments for the command line, with the project's queue as what is to be run."""
    if not words or (words[0].startswith("-") and words[0] not in HELP):
        words = ["run", *words]
    words = [part for word in words for part in (word.split("=", 1) if word.startswith(f"{OPTION}=") else [word])]
    words = [_conninfo(word) if before == OPTION else word for before, word in pairwise(["", *words])]
    return [words[0], TARGET, *words[1:]] if words[0] == "run" else words


def _conninfo(database: str) -> str:
    """Return how to connect to one of DATABASES that was named, else what was given: a connection string itself."""
    return conf.conninfo(database) if database in connections.settings else database


def _is_reloaded(arguments: list[str]) -> bool:
    alone = {argument.split("=")[0] for argument in arguments}.isdisjoint(NOT_RELOADED)
    return settings.DEBUG and arguments[0] == "run" and alone


def _run(arguments: list[str], program: str) -> None:
    """Run the command line, which exits; where it misses the schema, say how a project gets it."""
    try:
        main(arguments, prog_name=program, default_map={arguments[0]: _defaults(arguments[0])})
    except SystemExit as end:
        if end.code == ExitCode.NO_SCHEMA and OPTION not in arguments:
            click.echo(f"In this project, run {conf.how_to_migrate(conf.options().alias)}.", err=True)
        raise


def _defaults(name: str) -> dict[str, Any]:
    """Return what a command takes where nothing is said: where the jobs are, and for the worker how to work.

    A group of commands hands each the same.
    """
    options = conf.options()
    place = {"database": conf.conninfo(options.alias), "schema": options.schema}
    if name == "run":
        return place | conf.for_command_line(options.pool)
    if name == "demo":
        del place["schema"]  # it makes one, and drops it
    command = main.get_command(click.Context(main), name)
    return dict.fromkeys(getattr(command, "commands", ()), place) or place
