"""The project's settings: POST_DATABASE is the conninfo of its database, POST_WORKER is GRAPHILE_WORKER, as JSON."""

import json
import os
import sys

import django
from psycopg.conninfo import conninfo_to_dict


def _database(conninfo: str) -> dict[str, object]:
    server = conninfo_to_dict(conninfo)
    names = {"NAME": "dbname", "HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}
    database = {name: str(server.get(keyword, "")) for name, keyword in names.items()}
    return {"ENGINE": "django.db.backends.postgresql", **database}


def _choose_psycopg2() -> None:
    """Have Django use the older driver, which it does where the newer one is not installed."""
    newer = sys.modules["psycopg"]
    sys.modules["psycopg"] = None  # type: ignore[assignment]
    import django.db.backends.postgresql.base  # noqa: F401

    sys.modules["psycopg"] = newer


if os.environ.get("POST_DRIVER") == "psycopg2":
    _choose_psycopg2()

SECRET_KEY = "a pigeon knows no secrets"  # noqa: S105 - of a test
DEBUG = bool(os.environ.get("POST_DEBUG"))
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "post.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"  # as before Django 6.0
TIME_ZONE = "UTC"
LOGGING_CONFIG = None  # what is logged in the tests of others is their own affair
STATIC_URL = "static/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # quick
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "graphile_worker_py.contrib.django",
    *(["django_tasks"] if django.VERSION < (6,) else []),
    "pigeon",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {
    "default": {**_database(os.environ.get("POST_DATABASE", "dbname=post")), "ATOMIC_REQUESTS": True},
    "other": _database(os.environ.get("POST_OTHER_DATABASE", "dbname=other")),
    "file": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
GRAPHILE_WORKER = json.loads(os.environ.get("POST_WORKER", "{}"))
BACKEND = "graphile_worker_py.contrib.django.GraphileWorkerBackend"
TASKS = {
    "default": {"BACKEND": BACKEND, "QUEUES": ["default", "night"]},
    "kept": {"BACKEND": BACKEND, "OPTIONS": {"RESULTS": "7 days", "MAX_ATTEMPTS": 3}},
    "once": {"BACKEND": BACKEND, "OPTIONS": {"RESULTS": 3600, "RETRY": False}},
}
