"""What workers do."""

from django.db import connection

from graphile_worker_py.contrib.django import task
from pigeon.models import Letter


@task(max_attempts=3)
def send_letter(payload):
    """Send a letter, and remember that."""
    if payload["to"] == "nobody":
        raise ValueError("nobody lives there")
    Letter.objects.filter(to=payload["to"]).update(sent=True)
    print("sent to", payload["to"], flush=True)


@task
def lose_the_connection(payload):
    """Have the server end the connection of this thread, as an idle one is by many a network."""
    Letter.objects.count()
    connection.connection.close()
