"""contrib.flask: applications, their queues, their configuration, and the context around each job."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask, current_app, g, has_app_context
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import URL
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from urls import as_url

from graphile_worker_py import GraphileWorkerError, JobContext, JobSpec, Queue, Tasks, WorkerPool
from graphile_worker_py.contrib.flask import GraphileWorker, InvalidSetting, NotInitialized
from graphile_worker_py.testing import drain


def make_app(worker: GraphileWorker, url: str | None, name: str = "app", **config: Any) -> Flask:
    app = Flask(name)
    app.config.update({"GRAPHILE_WORKER_DATABASE_URL": url, **config})
    worker.init_app(app)
    return app


@pytest.fixture
def worker() -> GraphileWorker:
    """Return an extension with a task, as the module of an application has it."""
    worker = GraphileWorker()
    worker.task("note")(lambda payload: None)
    return worker


@pytest.fixture
def app(worker: GraphileWorker, migrated_url: str) -> Iterator[Flask]:
    """Return an application of the extension."""
    app = make_app(worker, migrated_url)
    yield app
    app.extensions["graphile_worker"].queue.close()


def test_a_view_adds_jobs(worker: GraphileWorker, app: Flask, queue: Queue) -> None:
    @worker.task(priority=3)
    def send(payload: dict[str, str]) -> None: ...

    @app.post("/")
    def view() -> str:
        send.add_job({"to": "ann"})
        worker.queue.add_jobs([JobSpec("note")])
        return str(worker.add_job("note", {"a": 1}, priority=7, run_at=timedelta(1), job_key="k", flags=["f"]).id)

    id = int(app.test_client().post("/").text)
    assert [(info.task_identifier, info.priority) for info in queue.jobs()] == [("send", 3), ("note", 0), ("note", 7)]
    job = queue.job(id)
    assert (job.payload, job.key, job.flags) == ({"a": 1}, "k", ("f",))


def test_every_job_has_a_context_of_its_own(worker: GraphileWorker, app: Flask, queue: Queue) -> None:
    seen: list[object] = []

    @worker.task
    def look(payload: object, ctx: JobContext) -> None:
        g.here = True
        seen.append(ctx.submit(lambda: (current_app.name, g.get("here"))).result())
        seen.append((current_app.name, g.get("here")))
        worker.add_job("later", run_at=timedelta(days=1))

    @worker.task
    def fail(payload: object) -> None:
        raise ValueError("no")

    @app.teardown_appcontext
    def tell(error: BaseException | None) -> None:
        seen.append(type(error))

    for task in ("look", "look", "fail"):
        queue.add_job(task)
    with app.app_context():
        summary = worker.queue.run_once(1)
    assert (summary.completed, summary.retrying) == (2, 1)
    once = [type(None), ("app", None), ("app", True), type(None)]
    assert seen == [*once, *once, ValueError, type(None)]  # the last is that of the block above
    assert [info.task_identifier for info in queue.jobs(state="scheduled")] == ["later"] * 2


def test_a_manager_of_the_application_is_entered_in_the_context(worker: GraphileWorker, migrated_url: str) -> None:
    seen: list[object] = []

    @contextmanager
    def around(ctx: JobContext) -> Iterator[None]:
        seen.append((ctx.job.task_identifier, current_app.name))
        yield
        seen.append(has_app_context())

    with make_app(worker, migrated_url, GRAPHILE_WORKER_AROUND=around).app_context():
        worker.add_job("note")
        worker.queue.run_once(1)
        worker.queue.close()
    assert seen == [("note", "app"), True]


def test_each_application_has_its_queue(worker: GraphileWorker, app: Flask, queue: Queue, database_url: str) -> None:
    other = make_app(worker, database_url, "other", GRAPHILE_WORKER_SCHEMA="elsewhere")
    task = worker.tasks["note"]
    with other.app_context():
        worker.queue.migrate()
        task.add_job()
        with app.app_context():
            task.add_job()
            task.add_job()
        assert len(worker.queue.jobs()) == 1
        assert worker.queue.schema == "elsewhere"
        assert worker.queue.run_once(1).completed == 1
        worker.queue.close()
    assert len(queue.jobs()) == 2


def test_libraries_can_be_included(worker: GraphileWorker, app: Flask, queue: Queue) -> None:
    library = Tasks()
    worker.include(library)
    late = library.task("late")(lambda payload: None)
    with app.app_context():
        late.add_job()
    assert [info.task_identifier for info in queue.jobs()] == ["late"]


def test_without_an_application_it_says_what_is_missing(worker: GraphileWorker, app: Flask) -> None:
    def refused(call: Callable[[], object], why: str) -> None:
        with pytest.raises(NotInitialized, match=why) as caught:
            call()
        assert isinstance(caught.value, (RuntimeError, GraphileWorkerError))

    task = worker.tasks["note"]
    for call in (task.add_job, lambda: worker.add_job("note"), lambda: worker.queue):
        refused(call, r"^which application's queue\? There is no application context: ")
    with Flask("other").app_context():
        refused(task.add_job, r"^app 'other' does not know this GraphileWorker: call init_app\(app\) first$")
    with app.app_context():
        refused(lambda: GraphileWorker().queue, r"^app 'app' does not know this GraphileWorker")
    refused(lambda: worker.init_app(app), r"^app 'app' has a GraphileWorker already: call init_app once for each app$")
    assert GraphileWorker(Flask("known")).queue.schema == "graphile_worker"


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (
            {"SHEMA": "x"},
            r"^app.config has GRAPHILE_WORKER_SHEMA, which is no setting; did you mean GRAPHILE_WORKER_SCHEMA\?$",
        ),
        (
            {"Q": 1},
            r"^app.config has GRAPHILE_WORKER_Q, which is no setting; after GRAPHILE_WORKER_ may come ",
        ),
        ({"MAX_SIZE": "5"}, r"cannot use: max_size: expected an int, got str$"),
        ({"SCHEMA": "a" * 64}, r"^app.config has a value that the queue cannot use: "),
        ({"AROUND": 5}, r"cannot use: around: expected a function"),
        ({"RETRY": "soon"}, r"cannot use: "),
        ({"DATABASE_URL": "postgresql://u:sesame@[/x"}, r"cannot use: "),
        ({"DATABASE_URL": 5}, r"cannot use: expected a conninfo"),
    ],
    ids=str,
)
def test_a_wrong_configuration_is_refused_at_once(config: dict[str, Any], why: str) -> None:
    app = Flask("app")
    app.config.update({f"GRAPHILE_WORKER_{name}": value for name, value in config.items()})
    with pytest.raises(InvalidSetting, match=why) as caught:
        GraphileWorker(app)
    assert "sesame" not in str(caught.value)
    assert not app.extensions


@pytest.mark.parametrize(
    ("config", "source"),
    [
        ({}, None),
        ({"SQLALCHEMY_DATABASE_URI": None}, None),
        ({"SQLALCHEMY_DATABASE_URI": "sqlite:///x"}, None),
        (
            {"SQLALCHEMY_DATABASE_URI": "postgresql+psycopg://u:p@h/d?sslmode=disable"},
            "postgresql://u:p@h/d?sslmode=disable",
        ),
        ({"SQLALCHEMY_DATABASE_URI": "postgres://h/d"}, "postgresql://h/d"),
        ({"SQLALCHEMY_DATABASE_URI": URL.create("postgresql", "u", "p q", "h")}, "postgresql://u:p%20q@h"),
        ({"SQLALCHEMY_DATABASE_URI": "postgres://h/d", "GRAPHILE_WORKER_DATABASE_URL": "dbname=e"}, "dbname=e"),
    ],
    ids=str,
)
def test_jobs_are_in_the_database_of_the_sessions(config: dict[str, Any], source: str | None) -> None:
    app = Flask("app")
    app.config.update(config)
    assert GraphileWorker(app).queue.database.source == source


def test_a_uri_that_libpq_cannot_read_is_named() -> None:
    app = Flask("app")
    app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql+psycopg://u:sesame@h/d?prepare_threshold=0"
    with pytest.raises(
        InvalidSetting, match=r"^app.config has a SQLALCHEMY_DATABASE_URI that .* GRAPHILE_WORKER_DATABASE_URL"
    ) as e:
        GraphileWorker(app)
    assert "sesame" not in str(e.value)
    app.config["GRAPHILE_WORKER_DATABASE_URL"] = "postgresql://h/d"
    GraphileWorker(app)


def test_an_application_that_goes_closes_its_queue(worker: GraphileWorker, migrated_url: str) -> None:
    app = make_app(worker, migrated_url, GRAPHILE_WORKER_MAX_SIZE=1)
    with app.app_context():
        worker.add_job("note")
        pool = worker.queue.database.pool()
        with worker.queue.database.connection() as connection:
            pass
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None
    assert connection.closed
    assert pool is not None


def test_a_forked_process_opens_connections_of_its_own(worker: GraphileWorker, app: Flask, queue: Queue) -> None:
    with app.app_context():
        worker.add_job("note")  # before the fork, as gunicorn --preload may
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                worker.add_job("note")
                os._exit(0)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        worker.add_job("note")
    assert len(queue.jobs()) == 5


# Flask-SQLAlchemy.


class Base(DeclarativeBase):
    """The tables of the application below."""


class Letter(Base):
    """A row that is written together with a job."""

    __tablename__ = "letters"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


@pytest.fixture(params=["psycopg", "psycopg2"])
def post(request: pytest.FixtureRequest, migrated_url: str) -> Iterator[tuple[Flask, GraphileWorker, SQLAlchemy]]:
    """Return an application with a database, by each driver; its configuration names it once."""
    worker, db, app = GraphileWorker(), SQLAlchemy(model_class=Base), Flask("post")
    app.config["SQLALCHEMY_DATABASE_URI"] = as_url(migrated_url, request.param)
    db.init_app(app)
    worker.init_app(app)
    with app.app_context():
        db.create_all()
        own, engine = worker.queue, db.engine
    yield app, worker, db
    own.close()
    engine.dispose()


def test_a_row_and_a_job_in_one_request(post: tuple[Flask, GraphileWorker, SQLAlchemy], queue: Queue) -> None:
    app, worker, db = post

    @worker.task
    def deliver(payload: dict[str, int], ctx: JobContext) -> None:
        letter = db.session.get_one(Letter, payload["letter"])
        letter.text += ", delivered"
        if ctx.job.attempts == 1:
            raise ValueError("the session and what it has not committed go with the job's context")
        ctx.complete(db.session)
        db.session.commit()

    @app.post("/letters/<text>")
    def write(text: str) -> str:
        letter = Letter(text=text)
        db.session.add(letter)
        db.session.flush()
        deliver.add_job({"letter": letter.id}, connection=db.session)
        if text == "bad":
            raise LookupError
        db.session.commit()
        return "written"

    client = app.test_client()
    assert client.post("/letters/good").text == "written"
    assert client.post("/letters/bad").status_code == 500
    assert [info.task_identifier for info in queue.jobs()] == ["deliver"]
    with app.app_context():
        done = drain(worker.queue, within=timedelta(hours=1), raise_errors=False)
        assert (len(done.failed), len(done.completed)) == (1, 1)
        assert [letter.text for letter in db.session.scalars(db.select(Letter))] == ["good, delivered"]


def test_drain_stays_in_the_session_it_was_given(post: tuple[Flask, GraphileWorker, SQLAlchemy], queue: Queue) -> None:
    app, worker, db = post

    @worker.task
    def first(payload: object, ctx: JobContext) -> None:
        worker.add_job("second")
        with ctx.transaction() as connection:
            connection.execute("insert into letters (text) values ('from a handler')")

    worker.task("second")(lambda payload: None)
    with app.app_context():
        first.add_job(connection=db.session)
        assert drain(worker.queue, connection=db.session).tasks == ["first", "second"]
        assert [letter.text for letter in db.session.scalars(db.select(Letter))] == ["from a handler"]
        db.session.rollback()
        assert db.session.scalars(db.select(Letter)).all() == []
    assert queue.jobs().items == []


def test_what_a_job_does_not_commit_is_undone(post: tuple[Flask, GraphileWorker, SQLAlchemy]) -> None:
    app, worker, db = post
    sessions: list[object] = []

    @worker.task
    def forget(payload: object) -> None:
        db.session.add(Letter(text="never"))
        db.session.flush()
        sessions.append(db.session())

    with app.app_context():
        with WorkerPool(worker.queue, 2):
            for job in [forget.add_job() for _ in range(3)]:
                worker.queue.wait_for(job, timeout=20)
        assert len(set(sessions)) == 3
        assert db.session.scalars(db.select(Letter)).all() == []
        assert db.engine.pool.checkedout() == 1  # by the line above
