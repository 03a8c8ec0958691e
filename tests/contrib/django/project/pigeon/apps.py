"""The app's configuration."""

from django.apps import AppConfig


class PigeonConfig(AppConfig):
    """Letters."""

    name = "pigeon"
    default_auto_field = "django.db.models.BigAutoField"
