"""Programs that obey, line by line: Node's worker through host.mjs, and installers of ours; started once, used often.

A start of Node takes half a second, so one host of each version serves all tests of a session. What it does for one
test is on a connection of its own, closed when the test ends, for the test's database is dropped then.
"""

from __future__ import annotations

import itertools
import json
import queue as queues
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from interop import node

DEADLINE = 30.0  # seconds; whatever is waited for takes far less


class Refused(Exception):
    """Node's worker raised this. `exit_code`: what a process of its own would have ended with, if it set any."""

    def __init__(self, message: str, *, code: str | None, exit_code: int | None) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = exit_code


class Host:
    """A program that takes commands on standard input and answers each under its number."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the host
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._numbers = itertools.count(1)
        self._answers: dict[int, Future[dict[str, Any]]] = {}
        self.connections: dict[str, NodeWorker] = {}
        self.ready: Future[str] = Future()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, command: str, **rest: Any) -> Future[dict[str, Any]]:
        """Send a command; the future holds its answer."""
        number = next(self._numbers)
        answer = self._answers[number] = Future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "command": command, **rest}) + "\n")
        self._process.stdin.flush()
        return answer

    def close(self) -> None:
        """End the program, which ends by itself when its input does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(DEADLINE)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._process.stdout.close()
            self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._take(json.loads(line))
        finally:
            self._errors.seek(0)
            reason = f"the host ended, or said what cannot be read: {self._errors.read()[-2000:]}"
            waiting: Future[Any]
            for waiting in [self.ready, *self._answers.values()]:
                if not waiting.done():
                    waiting.set_exception(EOFError(reason))

    def _take(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.ready.set_result(message["ready"])
        elif "id" in message:
            self._answers.pop(message["id"]).set_result(message)
        elif message["on"] in self.connections:
            self.connections[message["on"]].heard(message)


def node_host(version: str) -> Host:
    """Start host.mjs with one version of Node's worker."""
    return Host(node.script(version, "host"), node.environment(version, ""))


def python_host() -> Host:
    """Start an installer of ours."""
    return Host([sys.executable, "-W", "error", str(node.HERE / "installer.py")])


def server(conninfo: str) -> dict[str, Any]:
    """Return where a database is, in the words of Node's client."""
    names = {"host": "host", "port": "port", "user": "user", "password": "password", "dbname": "database"}
    return {names[name]: value for name, value in conninfo_to_dict(conninfo).items() if name in names and value}


class NodeWorker:
    """One schema of one database as a version of Node's worker has it: migrate, add jobs, run tasks.

    Payloads are JavaScript expressions, and so are the bodies of tasks, in which `payload`, `helpers`, tell(…),
    exact(…) and depth(…) can be used. `warnings`: what the worker logged as warning or error, command by command.
    """

    _names = itertools.count(1)

    def __init__(self, host: Host, conninfo: str, *, schema: str = "graphile_worker") -> None:
        self._host = host
        self._name = f"connection {next(self._names)}"
        self._told: queues.SimpleQueue[Any] = queues.SimpleQueue()
        self._ended: queues.SimpleQueue[int | None] = queues.SimpleQueue()
        self.warnings: list[str] = []
        host.connections[self._name] = self
        self._command("open", database=server(conninfo), schema=schema)

    def __enter__(self) -> NodeWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._command("close")
        finally:
            del self._host.connections[self._name]

    def migrate(self) -> None:
        """Install the schema or bring it up to date. Raises Refused, as every method here."""
        self._command("migrate")

    def start_to_migrate(self) -> Future[dict[str, Any]]:
        """Do the same, without waiting: the future holds the host's answer."""
        return self._host.send("migrate", on=self._name)

    def run(self, tasks: Mapping[str, str], **options: Any) -> None:
        """Start to work on these tasks; the options are those of Node's run()."""
        self._command("run", tasks=dict(tasks), options=options)

    def stop(self) -> None:
        """Stop what runs, when its jobs are done."""
        self._command("stop")

    def add_job(self, identifier: str, payload: str = "({})", **spec: Any) -> dict[str, Any]:
        """Add a job whose payload is the value of an expression; spec in Node's words, such as jobKey.

        Returns the job, its payload as JSON text.
        """
        return self._command("addJob", identifier=identifier, payload=payload, spec=spec)

    def add_jobs(self, specs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Add many jobs with one call."""
        return self._command("addJobs", specs=list(specs))

    def call(self, method: str, *parameters: Any) -> Any:
        """Call any method of makeWorkerUtils()."""
        return self._command("call", method=method, parameters=parameters)

    def told(self) -> Any:
        """Return the next value that a task told."""
        return self._told.get(timeout=DEADLINE)

    def ended(self) -> int | None:
        """Wait until what runs has stopped by itself or was stopped; return the exit code it set."""
        return self._ended.get(timeout=DEADLINE)

    def heard(self, message: dict[str, Any]) -> None:
        """Take what comes without having been asked for; called by the host's reader."""
        if "told" in message:
            self._told.put(message["told"])
        else:
            self._ended.put(message["ended"])

    def _command(self, command: str, **rest: Any) -> Any:
        answer = self._host.send(command, on=self._name, **rest).result(DEADLINE)
        self.warnings += answer["warnings"]
        if "error" in answer:
            error = answer["error"]
            raise Refused(error["message"], code=error["code"], exit_code=answer["exitCode"])
        return answer["result"]


def plain(value: Any) -> Any:
    """Return what exact() in host.mjs described: numbers as floats, the rest as Python has it."""
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "number":
        return struct.unpack(">d", bytes.fromhex(inner))[0]
    if kind == "array":
        return [plain(item) for item in inner]
    return {name: plain(item) for name, item in inner}
