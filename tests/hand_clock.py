"""A clock for schedulers that stands still until a test moves it."""

from __future__ import annotations

from datetime import datetime, timedelta


class Hand:
    """What a scheduler asks for the time."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def move(self, **time: float) -> None:
        self.moment += timedelta(**time)
