"""The session in docs is what the commands show today."""

from __future__ import annotations

import pytest
import session


def test_the_recorded_session_is_what_happens(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(session.ALWAYS, "DATABASE_URL", database_url)
    seen = session.drawn(session.record(database_url))
    assert session.words(seen) == session.words(session.PICTURE.read_text("utf-8")), "run python tests/session.py"
