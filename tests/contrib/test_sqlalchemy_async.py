"""connection= takes SQLAlchemy's asynchronous sessions within run_sync, over psycopg."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from urls import as_url

from graphile_worker_py import InvalidJobSpec, JobContext, JobSpec, Queue, SchemaMissing
from graphile_worker_py.testing import drain

pytest.importorskip("greenlet", reason="SQLAlchemy's asyncio part needs greenlet: make setup")

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[AsyncSession]:
    engine = create_async_engine(as_url(url, "psycopg"), **options)
    try:
        async with AsyncSession(engine) as session:
            yield session
    finally:
        await engine.dispose()


def stored(queue: Queue) -> list[str]:
    return [info.task_identifier for info in queue.jobs()]


def test_a_job_is_in_the_transaction_of_an_asynchronous_session(queue: Queue) -> None:
    async def program(session: AsyncSession) -> None:
        def adding(name: str, *more: str) -> Callable[[Session], Any]:
            return lambda sync: (
                queue.add_jobs([JobSpec(each) for each in (name, *more)], connection=sync)
                if more
                else queue.add_job(name, {"a": [1]}, job_key=name, flags=["f"], connection=sync)
            )

        job = await session.run_sync(adding("kept"))
        assert stored(queue) == []
        await session.commit()
        assert queue.job(job.id) == job
        await session.run_sync(adding("many", "and more"))
        await session.commit()
        await session.run_sync(adding("never"))
        await session.run_sync(adding("never", "ever"))
        await session.rollback()
        async with session.begin_nested() as nested:
            await session.run_sync(adding("never", "ever"))
            await nested.rollback()
        with pytest.raises(InvalidJobSpec):
            await session.run_sync(
                lambda sync: queue.add_jobs([JobSpec("never"), None], connection=sync)  # type: ignore[list-item]
            )
        with pytest.raises(psycopg.errors.NumericValueOutOfRange):
            await session.run_sync(lambda sync: queue.add_jobs(map(late, [0, 1]), connection=sync))
        await session.run_sync(lambda sync: queue.remove_job("kept", connection=sync))
        await session.commit()

    def late(number: int) -> JobSpec:
        spec = JobSpec("never", priority=0)
        object.__setattr__(spec, "priority", number * 10**6)  # past the checks, for the database to refuse
        return spec

    async def main() -> None:
        async with opened(queue.database.source) as session:
            await program(session)

    asyncio.run(main())
    assert stored(queue) == ["many", "and more"]


def test_in_autocommit_and_in_a_drain(queue: Queue, db: psycopg.Connection) -> None:
    ran: list[object] = []

    @queue.task
    def note(payload: object, ctx: JobContext) -> None:
        ran.append(payload)
        if payload == 2:
            ctx.complete(own[0])

    own: list[Session] = []

    async def main() -> None:
        async with opened(queue.database.source, isolation_level="AUTOCOMMIT") as session:
            await session.run_sync(lambda sync: queue.add_jobs([JobSpec("note", 1)], connection=sync))
            assert stored(queue) == ["note"]
        async with opened(queue.database.source) as session:
            own.append(session.sync_session)
            await session.run_sync(lambda sync: queue.add_job("note", 2, connection=sync))
            done = await session.run_sync(lambda sync: drain(queue, connection=sync))
            assert done.tasks == ["note", "note"]
            await session.rollback()
            with pytest.raises(SchemaMissing):
                await session.run_sync(lambda sync: Queue("", schema="no").add_job("x", connection=sync))
            await session.rollback()
            pid = await session.scalar(text("select pg_backend_pid()"))
            db.execute("select pg_terminate_backend(%s)", [pid])
            with pytest.raises(psycopg.OperationalError):
                await session.run_sync(lambda sync: queue.add_job("never", connection=sync))
            await session.rollback()
            await session.run_sync(lambda sync: queue.add_job("again", connection=sync))
            await session.commit()

    asyncio.run(main())
    assert ran == [1, 2]
    assert stored(queue) == ["note", "again"]


def test_without_run_sync_it_says_to_use_it(queue: Queue) -> None:
    async def main() -> None:
        async with opened(queue.database.source) as session:
            makers = async_sessionmaker(session.bind)
            for given in (session, async_scoped_session(makers, asyncio.current_task), await session.connection()):
                with pytest.raises(InvalidJobSpec, match=r"is asynchronous: await session.run_sync\(lambda session: "):
                    queue.add_job("never", connection=given)

    asyncio.run(main())
    assert stored(queue) == []
