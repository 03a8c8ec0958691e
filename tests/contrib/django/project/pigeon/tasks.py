"""What workers do."""

from graphile_worker_py.contrib.django import task
from pigeon.models import Letter


@task(max_attempts=3)
def send_letter(payload):
    """Send a letter, and remember that."""
    if payload["to"] == "nobody":
        raise ValueError("nobody lives there")
    Letter.objects.filter(to=payload["to"]).update(sent=True)
    print("sent to", payload["to"], flush=True)
