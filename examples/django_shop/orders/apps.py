"""The app's configuration."""

from django.apps import AppConfig


class OrdersConfig(AppConfig):
    """The shop's only app of its own."""

    name = "orders"
