"""Pictures are uploaded, and a worker makes thumbnails of them; a page shows how far that is.

The row of a picture and its job are one transaction, and so are the rows of the thumbnails and the end of the job.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import thumbnails
from flask import Flask, Response, abort, current_app, redirect, render_template, request, send_file, url_for
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from graphile_worker_py import JobContext
from graphile_worker_py.contrib.flask import GraphileWorker

SIZES = (1024, 512, 256, 128, 64)
LARGEST_UPLOAD = 30_000_000  # bytes


class Base(DeclarativeBase):
    """The tables of this application."""


class Thumbnail(Base):
    """A thumbnail that there is."""

    __tablename__ = "thumbnails"
    __table_args__ = (UniqueConstraint("picture_id", "size"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    picture_id: Mapped[int] = mapped_column(ForeignKey("pictures.id"))
    size: Mapped[int]


class Picture(Base):
    """A picture that somebody has uploaded, and the job that makes its thumbnails."""

    __tablename__ = "pictures"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    job_id: Mapped[int | None]
    thumbnails: Mapped[list[Thumbnail]] = relationship(order_by=Thumbnail.size)


db = SQLAlchemy(model_class=Base)
worker = GraphileWorker()


@worker.task(max_attempts=3)
def make_thumbnails(payload: dict[str, int], ctx: JobContext) -> None:
    """Make all thumbnails of a picture. Repeated after a crash, it makes the files again, and the rows once."""
    id = payload["picture"]
    for done, size in enumerate(SIZES):
        ctx.progress(done, len(SIZES), f"{size} pixels")
        thumbnails.make(original(id), thumbnail(id, size), size)
        db.session.add(Thumbnail(picture_id=id, size=size))
    ctx.complete(db.session)
    db.session.commit()


def original(id: int) -> Path:
    """Return where a picture is."""
    return Path(current_app.config["UPLOADS"]) / f"{id}"


def thumbnail(id: int, size: int) -> Path:
    """Return where a thumbnail is, or will be."""
    return Path(current_app.config["UPLOADS"]) / f"{id}-{size}.jpeg"


def create_app() -> Flask:
    """Make the application: FLASK_UPLOADS is its folder, DATABASE_URL its database, for the rows and for the jobs."""
    app = Flask(__name__)
    app.config["UPLOADS"] = os.path.join(app.instance_path, "uploads")
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_UPLOAD
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:", 1)
    app.config.from_prefixed_env()
    os.makedirs(app.config["UPLOADS"], exist_ok=True)
    db.init_app(app)
    worker.init_app(app)
    app.cli.command("create-tables")(create_tables)
    app.add_url_rule("/", view_func=index)
    app.add_url_rule("/pictures", view_func=upload, methods=["POST"])
    app.add_url_rule("/pictures/<int:id>", view_func=show)
    app.add_url_rule("/pictures/<int:id>/progress", view_func=progress)
    app.add_url_rule("/pictures/<int:id>/<int:size>", view_func=show_thumbnail)
    return app


def create_tables() -> None:
    """Make the tables for pictures and for jobs, unless they are there."""
    db.create_all()
    worker.queue.migrate()


def index() -> str:
    """Show a form, and the newest pictures."""
    newest = db.select(Picture).order_by(Picture.id.desc()).limit(50)
    return render_template("index.html", pictures=db.session.scalars(newest))


def upload() -> Any:
    """Take a picture: its row and its job are committed together."""
    picture = store()
    picture.job_id = make_thumbnails.add_job({"picture": picture.id}, connection=db.session).id
    db.session.commit()
    return redirect(url_for("show", id=picture.id), 303)


def store() -> Picture:
    """Keep what was uploaded, and return its row, which is not committed; a file without a row does no harm."""
    file = request.files.get("picture")
    if file is None or not thumbnails.is_picture(file.stream):
        abort(400, "Choose a picture: a JPEG, PNG, GIF or WebP file.")
    picture = Picture(name=file.filename or "unnamed")
    db.session.add(picture)
    db.session.flush()  # now it has its id
    file.save(original(picture.id))
    return picture


def show(id: int) -> str:
    """Show a picture's page, which asks for progress until the thumbnails are there."""
    return render_template("picture.html", picture=db.get_or_404(Picture, id))


def progress(id: int) -> dict[str, Any]:
    """Say how far a picture is: its state, of how many thumbnails how many are made, and those that can be seen."""
    picture = db.get_or_404(Picture, id)
    job = None if picture.thumbnails or picture.job_id is None else worker.queue.job(picture.job_id)
    if job is None:  # it is done, perhaps since a moment
        db.session.refresh(picture)
        sizes = [one.size for one in picture.thumbnails]
        return {"state": "done", "done": len(sizes), "total": len(SIZES), "sizes": sizes}
    told = worker.queue.progress(job.id)
    waits = "failed" if job.attempts >= job.max_attempts else "waiting"
    return {
        "state": waits if job.locked_at is None else "running",
        "done": told.done if told else 0,
        "total": len(SIZES),
        "sizes": [],
    }


def show_thumbnail(id: int, size: int) -> Response:
    """Send a thumbnail."""
    db.one_or_404(db.select(Thumbnail).filter_by(picture_id=id, size=size))
    return send_file(thumbnail(id, size))
