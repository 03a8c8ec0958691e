"""What workers do. Either kind of task is a job, added in the transaction of the order and run at least once.

Both bear being repeated, each in its own way. A receipt is sent by looking first whether it was. A parcel is packed in
the transaction that also completes the job: a worker may be killed at any moment, and the shelf is one parcel short, or
not.
"""

import os
import time

from django.db import connection, transaction
from django.db.models import F

from graphile_worker_py.contrib.django import task as job
from orders.models import Order, Parcel, Product, Receipt

try:
    from django.tasks import task
except ImportError:  # before Django 6.0
    from django_tasks import task

PACE = float(os.environ.get("SHOP_PACE", "0.02"))  # seconds that a mail server, or a pair of hands, takes


@task(takes_context=True)
def send_receipt(context, number):
    """Send the receipt of an order; return whom it went to."""
    order = Order.objects.get(pk=number)
    if not Receipt.objects.filter(order=order).exists():
        time.sleep(PACE)
        Receipt.objects.get_or_create(order=order, defaults={"attempt": context.attempt})
    return {"to": order.customer}


@job
def pack(payload, ctx):
    """Take the goods of an order from the shelf, exactly once."""
    with transaction.atomic():
        order = Order.objects.get(pk=payload["order"])
        Product.objects.filter(pk=order.product_id).update(on_shelf=F("on_shelf") - order.quantity)
        time.sleep(PACE / 2)
        Parcel.objects.create(order=order)
        ctx.complete(connection)
