"""The settings of the shop. What matters for jobs stands at the end.

DATABASE_URL is its database; SHOP_DEBUG=1 is for development; SHOP_SECRET_KEY and SHOP_HOSTS are for everything else.
"""

import os
import secrets

import django
from psycopg.conninfo import conninfo_to_dict

DEBUG = os.environ.get("SHOP_DEBUG") == "1"
SECRET_KEY = os.environ.get("SHOP_SECRET_KEY") or secrets.token_hex(32)
ALLOWED_HOSTS = os.environ.get("SHOP_HOSTS", "localhost,127.0.0.1").split(",")

ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
STATIC_URL = "static/"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
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

server = conninfo_to_dict(os.environ.get("DATABASE_URL", "dbname=shop"))
DATABASES = {
    "default": {"ENGINE": "django.db.backends.postgresql", "NAME": server.pop("dbname", "shop"), "OPTIONS": server}
}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "graphile_worker_py.contrib.django",  # brings the tables of jobs, their admin and the worker
    "orders",
]
if django.VERSION < (6,):
    INSTALLED_APPS.append("django_tasks")  # what Django 6.0 has built in

# Django's own tasks are jobs too; what they return is kept for a day, so that the shop can show what became of them.
TASKS = {
    "default": {
        "BACKEND": "graphile_worker_py.contrib.django.GraphileWorkerBackend",
        "OPTIONS": {"RESULTS": "1 day", "MAX_ATTEMPTS": 5},
    }
}
GRAPHILE_WORKER = {"CONCURRENCY": 4}
