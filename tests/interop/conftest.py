"""Tests that need Node skip themselves where it is missing, and say why; in the end it is told what ran."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pytest_postgresql import factories

from interop import node, replay
from interop.host import Host, NodeWorker, node_host

HERE = Path(__file__).parent
EVERY = "every version"


@pytest.fixture(scope="session")
def packages() -> None:
    """Skip the test where Node's workers cannot be installed."""
    try:
        node.installed()
        for version in node.VERSIONS:
            node.binary(version)
    except node.Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def hosts(packages: None) -> Iterator[Callable[[str], Host]]:
    """Return a function from a version to the program that runs it, started on first use."""
    started: dict[str, Host] = {}

    def host(version: str) -> Host:
        if version not in started:
            started[version] = node_host(version)
        return started[version]

    yield host
    for running in started.values():
        running.close()


@pytest.fixture(scope="session")
def node_worker(hosts: Callable[[str], Host]) -> Callable[..., NodeWorker]:
    """Return a function from a version and a conninfo to a NodeWorker, which is a context manager."""

    def connect(version: str, conninfo: str, **options: str) -> NodeWorker:
        return NodeWorker(hosts(version), conninfo, **options)

    return connect


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a function that counts what a test did, for the summary: tally(jobs=20)."""

    def count(**done: int) -> None:
        request.node.user_properties.extend(done.items())

    return count


# The summary. What a test is about travels with its report: the version is its parameter of that name, the direction
# its mark, or else the name of its file.


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "direction(text): whose schema, whose jobs, whose worker; for the summary")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note version and direction on every test of this folder."""
    for item in items:
        if HERE in item.path.parents:
            parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
            mark = item.get_closest_marker("direction")
            direction = mark.args[0] if mark else item.path.stem.removeprefix("test_").replace("_", " ")
            item.user_properties.append(("side by side", (str(parameters.get("version", EVERY)), direction)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print per Node version and direction what ran and how many."""
    done: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in terminalreporter.getreports(outcome):
            properties = getattr(report, "user_properties", [])
            place = dict(properties).get("side by side")
            if place:
                done[place][outcome] += 1
                for name, count in properties:
                    done[place][name] += count if name != "side by side" else 0
    if not done:
        return
    terminalreporter.section("side by side with Node's worker")
    widest = max(len(direction) for _, direction in done)
    for (version, direction), counts in sorted(done.items()):
        told = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count)
        terminalreporter.write_line(f"{version:<14} {direction:<{widest}}  {told}")


def _conninfo(**server: object) -> str:
    return make_conninfo("", **{name: value for name, value in server.items() if value})


def _install_both(**server: object) -> None:
    replay.install(_conninfo(**server))


both_server = factories.postgresql_noproc(dbname=f"gwpy_both_{os.getpid()}", load=[_install_both])
both_database = factories.postgresql("both_server")


@pytest.fixture
def both_url(packages: None, both_database: psycopg.Connection) -> str:
    """Return the conninfo of a database of this test's own, with Node's schema and ours side by side."""
    names = ("host", "port", "user", "dbname", "password")
    server = {name: getattr(both_database.info, name) for name in names}
    both_database.close()
    return _conninfo(**server)
