"""examples/django_shop with its real servers and workers: every order is accounted for, whoever is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
import pytest
from command_line import ROOT, environment
from plain_sql import eventually

from graphile_worker_py import Queue, WorkerPool

SHOP = ROOT / "examples" / "django_shop"
ORDERS = 300
SILENCE = "update graphile_worker._private_py_pools set beat_at = now() - interval '61 seconds' where id = %s"
BUSY = "select locked_by, count(*) from graphile_worker.jobs where locked_by is not null group by 1"
UNDONE = """
select count(*) from orders_order as o
where not exists (select from orders_receipt as r where r.order_id = o.id)
    or not exists (select from orders_parcel as p where p.order_id = o.id)
"""

pytestmark = pytest.mark.timeout(180)


def manage(*arguments: str) -> list[str]:
    return [sys.executable, "manage.py", *arguments]


class Shop:
    """Processes of the shop, on one database."""

    def __init__(self, url: str, log: Path) -> None:
        self.environment = environment(DATABASE_URL=url, PYTHONUNBUFFERED="1")
        self._log = log.open("w+")
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, *command: str) -> str:
        """Run a command to its end, and return what it printed."""
        done = subprocess.run(
            command, cwd=SHOP, env=self.environment, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, *command: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a process that is killed, with all it has started, when the test ends."""
        process = subprocess.Popen(
            command,
            cwd=SHOP,
            env={**self.environment, **more},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def said(self) -> str:
        """Return what all of them have printed."""
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        for process in self._started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._log.close()


@pytest.fixture
def shop(database_url: str, tmp_path: Path) -> Iterator[Shop]:
    """Return a shop on a database of its own."""
    shop = Shop(database_url, tmp_path / "log")
    yield shop
    shop.close()


@pytest.fixture
def db(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@contextmanager
def free_port() -> Iterator[str]:
    """Yield a port that is held, unheard, until the block ends."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield str(holder.getsockname()[1])


def when_it_answers(port: str) -> httpx.Client:
    """Return a client that has been given the page, and with it the token that forms are sent with."""
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def answers() -> bool:
        with suppress(httpx.TransportError):
            return client.get("/").status_code == 200
        return False

    eventually(answers, seconds=60)
    client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
    return client


def place(client: httpx.Client, number: int) -> int | None:
    """Order something, every third time with a card that the bank declines; return the order's number."""
    form = {
        "customer": f"{number}@example.org",
        "product": str(1 + number % 3),
        "card": "5" if number % 3 == 0 else "4",
    }
    answer = client.post("/orders", data=form)
    assert answer.status_code == (402 if number % 3 == 0 else 201), answer.text
    placed: int | None = answer.json().get("order")
    return placed


def bury(url: str, pool: str, db: psycopg.Connection) -> None:
    """Let a minute pass for a pool that is dead, and somebody see it."""
    with Queue(url) as judge:
        judge.task("judge")(print)
        with WorkerPool(judge, 1, heartbeat=0.1, dead_after=0.5):
            db.execute(SILENCE, [pool])
            eventually(lambda: db.execute(f"{BUSY} having locked_by = %s", [pool]).fetchall() == [])


def test_every_order_is_accounted_for(shop: Shop, database_url: str, db: psycopg.Connection) -> None:
    shop.run(*manage("migrate", "--verbosity", "0"))
    with free_port() as first, free_port() as second:
        pass
    shop.start(*manage("runserver", "--noreload", f"127.0.0.1:{first}"))
    shop.start(sys.executable, "-m", "gunicorn", "shop.wsgi", "--workers=2", "--preload", f"--bind=127.0.0.1:{second}")
    victim = shop.start(*manage("graphile_worker", "run", "-c", "4"))
    clients = [when_it_answers(port) for port in (first, second)]
    with ThreadPoolExecutor(4) as visitors:
        answers = [visitors.submit(place, clients[number % 2], number) for number in range(ORDERS // 2)]
        eventually(lambda: count(db, "select count(*) from orders_receipt") > ORDERS // 10)
        with db.transaction():  # packing waits for a row of these, so that the worker has something in its hands
            db.execute("select from orders_product for no key update")
            placed = [place(clients[0], ORDERS + 1)]
            eventually(lambda: db.execute(BUSY).fetchall())
            victim.send_signal(signal.SIGKILL)
            victim.wait()
        ((dead, orphans),) = db.execute(BUSY).fetchall()
        worker = shop.start(*manage("graphile_worker", "run", "-c", "4"))
        answers += [visitors.submit(place, clients[number % 2], number) for number in range(ORDERS // 2, ORDERS)]
        bury(database_url, dead, db)
        placed += [number for answer in answers if (number := answer.result()) is not None]
    assert orphans >= 1
    eventually(lambda: count(db, UNDONE) == 0 and count(db, "select count(*) from graphile_worker.jobs") == 0)

    assert len(placed) == len(set(placed)) == ORDERS - ORDERS // 3 + 1
    assert sorted(placed) == [number for (number,) in db.execute("select id from orders_order order by id")]
    said = shop.run(*manage("books"))
    assert said.startswith(f"{len(placed)} orders, {len(placed)} receipts, {len(placed)} parcels\n")
    assert "Every order has one receipt and one parcel" in said
    told = clients[0].get(f"/orders/{placed[-1]}").json()
    assert (told["receipt"], told["parcels"], told["sent"]["to"][-12:]) == ("SUCCESSFUL", 1, "@example.org")
    for client in clients:
        client.close()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert "Traceback" not in shop.said()


def count(db: psycopg.Connection, query: str) -> int:
    (number,) = db.execute(query).fetchone() or (0,)
    return int(number)


def test_somebody_starts_it_and_ends_it(shop: Shop) -> None:
    with free_port() as port:
        pass
    started = shop.start(sys.executable, "start.py", "--port", port)
    client = when_it_answers(port)
    number = place(client, 1)
    eventually(lambda: client.get(f"/orders/{number}").json()["receipt"] == "SUCCESSFUL")
    form = {"username": "admin", "password": "admin"}
    page = client.post("/admin/login/?next=/admin/graphile_worker/job/", data=form, follow_redirects=True)
    assert (page.status_code, "job" in page.text.lower()) == (200, True)
    client.close()
    started.send_signal(signal.SIGINT)
    assert started.wait(60) == 0, shop.said()
    assert "http://127.0.0.1" in shop.said()


def test_its_own_tests_pass(shop: Shop) -> None:
    assert "Ran 5 tests" in shop.run(*manage("test", "--noinput"))
