"""The application of examples/flask_uploads, and a view that differs from its upload only in that it adds no job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from flask import Flask, redirect, url_for

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "flask_uploads"))

import app as example


def create_app() -> Flask:
    """Make the application."""
    app = example.create_app()
    app.add_url_rule("/without-a-job", view_func=upload_alone, methods=["POST"])
    return app


def upload_alone() -> Any:
    """Take a picture; its row is written and changed as ever."""
    picture = example.store()
    picture.job_id = -picture.id
    example.db.session.commit()
    return redirect(url_for("show", id=picture.id), 303)
