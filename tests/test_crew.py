"""Crew: threads that take, work and deliver, without a database."""

from __future__ import annotations

import queue
import threading

from graphile_worker_py.worker.crew import Crew


class Counted(queue.SimpleQueue[str]):
    """A queue that lets its readers be counted."""

    def __init__(self) -> None:
        self.readers = threading.Semaphore(0)

    def get(self, block: bool = True, timeout: float | None = None) -> str:
        self.readers.release()
        return super().get(block, timeout)


def test_all_who_wait_for_the_end_hear_of_it() -> None:
    go = threading.Event()
    crew = Crew(2, take=lambda: go.wait(30) and None, work=lambda job: None, deliver=lambda outcome: None)  # type: ignore[arg-type,return-value]
    crew.news = Counted()
    crew.start()
    heard: list[bool] = []
    waiting = [threading.Thread(target=lambda: heard.append(crew.wait(60)), daemon=True) for _ in range(3)]
    for thread in waiting:
        thread.start()
    for _ in waiting:
        assert crew.news.readers.acquire(timeout=30)
    go.set()
    for thread in waiting:
        thread.join(20)
    assert heard == [True] * 3
