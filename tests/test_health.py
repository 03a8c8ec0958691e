"""Health: what a pool says of itself, and how HTTP clients are told, however they behave."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import click
import psycopg
import pytest
from plain_sql import eventually
from tcp_proxy import TcpProxy

from graphile_worker_py import Health, JobCompleted, Queue, WorkerPool
from graphile_worker_py.cli import _health_server, run
from graphile_worker_py.cli._health_server import HealthServer
from graphile_worker_py.cli._options import NotThere
from graphile_worker_py.cli._run_options import read_address
from graphile_worker_py.worker import health as health_module

WELL = Health(ready=True, reasons=())

# What a pool says.


def test_a_pool_is_ready_from_its_start_to_its_stop(queue: Queue) -> None:
    began, go = threading.Event(), threading.Event()

    @queue.task
    def wait(payload: object) -> None:
        began.set()
        go.wait(30)

    pool = WorkerPool(queue, 2)
    assert pool.health() == Health(live=True, ready=False, stopping=False, running=0, reasons=("starting",))
    pool.start()
    assert pool.health() == WELL
    queue.add_job("wait")
    assert began.wait(30)
    assert pool.health() == Health(ready=True, running=1, reasons=())
    assert pool.stop(timeout=0)
    assert pool.health() == Health(live=True, ready=False, stopping=True, running=1, reasons=("stopping",))
    go.set()
    pool.stop()
    assert pool.health() == Health(stopping=True, reasons=("stopping",))


def test_a_thread_that_does_not_move_is_found(
    queue: Queue, pools: Callable[..., WorkerPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "STUCK_AFTER", 0.05)
    queue.database.statement_timeout = 0.01
    queue.task("note")(print)
    stuck, go = threading.Event(), threading.Event()

    def stand_still(event: JobCompleted) -> None:
        stuck.set()
        go.wait(30)

    queue.events.subscribe(JobCompleted, stand_still)
    pool = pools(1)
    queue.add_job("note")
    assert stuck.wait(30)
    eventually(lambda: any(one.startswith("the completer has not moved for ") for one in pool.health().reasons))
    assert (pool.health().live, pool.health().ready) == (False, False)
    queue.database.statement_timeout = None  # then a step may take for ever
    assert pool.health().live
    go.set()


def test_an_outage_is_no_death(
    proxied_url: str, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch, db: psycopg.Connection
) -> None:
    """Also where there is no table of the living, and nothing polls: the heart asks all the same."""
    monkeypatch.setattr(health_module, "HEARD_WITHIN", 0.4)
    db.execute("drop table graphile_worker._private_py_pools, graphile_worker._private_py_migrations")
    with Queue(proxied_url) as queue:
        queue.task("note")(print)
        with WorkerPool(queue, 1, heartbeat=0.1, poll_interval=3600) as pool:
            heard = queue.database.heard_at
            eventually(lambda: queue.database.heard_at > heard + 0.2)
            assert pool.health() == WELL
            proxy.refuse()
            proxy.reset()
            eventually(lambda: not pool.health().ready)
            health = pool.health()
            assert health.live
            assert health.reasons[0].startswith("the database was last heard ")
            proxy.accept()
            eventually(lambda: pool.health() == WELL)


# How HTTP clients are told.


class Site:
    """A server that says what `health` is, and clients of it."""

    def __init__(self, address: tuple[str, int] = ("", 0)) -> None:
        self.health = WELL
        self.server = HealthServer(address, lambda: self.health)
        self.server.start()

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection((host, self.server.port), timeout=30)

    def ask(self, request: str, host: str = "127.0.0.1") -> tuple[str, str, str]:
        """Return the first line, the headers and the body of the answer to raw text."""
        with self.connect(host) as client:
            client.sendall(request.encode())
            answer = b"".join(iter(lambda: client.recv(65_536), b"")).decode()
        head, _, body = answer.partition("\r\n\r\n")
        line, _, headers = head.partition("\r\n")
        return line, headers, body

    def get(self, path: str, host: str = "127.0.0.1") -> tuple[int, object]:
        line, headers, body = self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n", host)
        assert f"Content-Length: {len(body)}" in headers
        return int(line.split()[1]), json.loads(body)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    assert site.server.stop(10)


def test_pages(site: Site) -> None:
    assert site.get("/live") == (200, {"live": True, "reasons": []})
    assert site.get("/ready?verbose") == (200, {"ready": True, "reasons": [], "running": 0})
    site.health = Health(running=2, stopping=True, reasons=("stopping",))
    assert site.get("/live") == (200, {"live": True, "reasons": []})
    assert site.get("/ready") == (503, {"ready": False, "reasons": ["stopping"], "running": 2})
    site.health = Health(live=False, reasons=("the heart has not moved",))
    assert site.get("/live") == (503, {"live": False, "reasons": ["the heart has not moved"]})
    for path in ("/metrics", "/", "/live/"):
        code, body = site.get(path)
        assert (code, body) == (404, {"error": "there are /live and /ready; metrics are not offered yet"})


def test_other_requests(site: Site) -> None:
    line, headers, body = site.ask("HEAD /ready HTTP/1.0\r\n\r\n")
    assert (line, body) == ("HTTP/1.0 200 OK", "")
    assert "Content-Length: 45" in headers
    assert "Server: graphile-worker-py\r\n" in headers
    assert site.ask("POST /live HTTP/1.1\nContent-Length: 2\n\n{}")[0] == "HTTP/1.0 501 Not Implemented"
    assert json.loads(site.ask('"}\x1b nonsense HTTP/9\r\n\r\n')[0]) == {"error": "Bad request version ('HTTP/9')"}
    for nothing in ("\r\n\r\n", "GET /live HTTP/1.1\r\nX: " + "x" * 70_000):
        with suppress(ConnectionError):
            site.ask(nothing)
    with site.connect() as client:
        client.sendall(b"GET /li")
        client.sendall(b"ve HTTP/1.1\r\n\r\n")
        assert client.recv(15) == b"HTTP/1.0 200 OK"
    assert site.get("/live")[0] == 200


def test_slow_clients_hold_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(site.connect()) for _ in range(_health_server.MOST_CLIENTS)]
        for client in slow:
            client.sendall(b"GET /live")
        assert site.get("/live")[0] == 200
        assert slow[0].recv(1) == b""  # the oldest has made room
        slow[-1].sendall(b" HTTP/1.1\r\n\r\n")
        assert slow[-1].recv(15) == b"HTTP/1.0 200 OK"
    monkeypatch.setattr(_health_server, "PATIENCE", 0.1)
    with site.connect() as client:
        client.sendall(b"GET /live")
        assert client.recv(1) == b""  # its time was over


def test_both_protocols_and_one_alone(site: Site) -> None:
    if socket.has_dualstack_ipv6():
        assert site.get("/live", "::1")[0] == 200
        other = Site(("::1", 0))
        assert other.get("/live", "::1")[0] == 200
        assert other.server.stop(10)
    other = Site(("localhost", 0))
    assert other.get("/live", "localhost")[0] == 200
    assert other.server.stop(10)


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("", "cannot listen on port {port}: Address already in use"),
        ("127.0.0.1", "cannot listen on 127.0.0.1:{port}: Address already in use"),
        ("192.0.2.1", "cannot listen on 192.0.2.1:{port}: Cannot assign requested address"),
        ("nowhere.invalid", "cannot listen on nowhere.invalid:{port}: "),
        ("a..b", "cannot listen on a..b:{port}: "),
    ],
)
def test_where_nobody_can_listen(site: Site, host: str, says: str) -> None:
    port = site.server.port
    with pytest.raises(NotThere) as caught:
        HealthServer((host, port), lambda: WELL)
    assert f"--health-port: {says.format(port=port)}" in str(caught.value.message)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8080", ("", 8080)),
        (":8080", ("", 8080)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert read_address(click.Context(run.command), run.command.params[0], text) == address


@pytest.mark.parametrize("text", ["", "x", "65536", "-1", "::1:80", "[::1]", "1.2.3.4", "9" * 5000, "٣", "tcp://a:1"])
def test_what_is_no_address(text: str) -> None:
    hint = "enableServiceLinks" if text.startswith("tcp") else "expected a port, such as 8080, or HOST:PORT"
    with pytest.raises(click.BadParameter, match=hint):
        read_address(click.Context(run.command), run.command.params[0], text)
