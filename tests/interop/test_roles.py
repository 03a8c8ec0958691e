"""Node's worker as the role of a worker, and as that of a producer, which may do no more than ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from plain_sql import eventually
from rights import Stage, staged

from graphile_worker_py import Queue
from interop import node
from interop.host import NodeWorker, Refused

pytestmark = [pytest.mark.usefixtures("packages"), pytest.mark.direction("schema ours, roles with few rights")]

each_living = pytest.mark.parametrize("version", node.LIVING)


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    with staged(database_url) as stage:
        yield stage


@pytest.fixture
def queue(database_url: str) -> Iterator[Queue]:
    with Queue(database_url) as queue:
        yield queue


@each_living
@pytest.mark.parametrize("installer", ["ours", "node"])
def test_node_runs_jobs_as_a_worker_that_a_producer_adds(
    version: str, installer: str, stage: Stage, queue: Queue, node_worker: Callable[..., NodeWorker], database_url: str
) -> None:
    with node_worker(version, database_url) as node_installer:
        (queue if installer == "ours" else node_installer).migrate()
    stage.set_up(["greet", "fail"])
    schema = stage.roles.producer_schema
    with (
        node_worker(version, stage.url("worker")) as worker,
        node_worker(version, stage.url("producer"), schema=schema) as producer,
    ):
        tasks = {"greet": "tell(payload)", "fail": "(() => { throw new Error('no'); })()", "tick": "null"}
        worker.run(tasks, crontab="* * * * * tick")
        job = producer.add_job("greet", "'Ada'", queueName="letters", priority=-1, jobKey="ada", flags=["slow"])
        assert (job["payload"], job["key"], job["flags"]) == ('"Ada"', "ada", {"slow": True})
        assert worker.told() == "Ada"
        producer.add_jobs([{"identifier": "greet", "payload": f"{number}"} for number in range(20)])
        assert sorted(worker.told() for _ in range(20)) == list(range(20))
        stage.queue("producer").add_job("greet", {"from": "python"})
        assert worker.told() == {"from": "python"}
        failing = producer.add_job("fail", maxAttempts=1)["id"]
        eventually(lambda: queue.jobs(state="failed").items)
        queue.add_job("theirs", ["secret"], job_key="theirs")
        for identifier, key in (("theirs", "free"), ("greet", "theirs")):
            with pytest.raises(Refused) as refused:
                producer.add_job(identifier, "['x']", jobKey=key)
            assert refused.value.code == "42501"
        worker.stop()
        assert worker.ended() is None
        assert [warning for warning in worker.warnings if "denied" in warning] == []
        for call in (("completeJobs", [failing]), ("cleanup", {"tasks": ["GC_JOB_QUEUES"]})):
            with pytest.raises(Refused):
                producer.call(*call)
            worker.call(*call)
    assert [(job.task_identifier, job.key) for job in queue.jobs().items if job.task_identifier != "tick"] == [
        ("theirs", "theirs")
    ]
    assert [item.identifier for item in queue.crontab.known()] == ["tick"]
