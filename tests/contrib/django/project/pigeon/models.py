"""Letters."""

from django.db import models


class Letter(models.Model):
    """Who it is to, unique, and whether it was sent."""

    to = models.CharField(max_length=100, unique=True)
    sent = models.BooleanField(default=False)
