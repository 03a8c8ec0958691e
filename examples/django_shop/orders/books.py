"""The books: whether every order was dealt with, and none twice."""

from django.db.models import Count, Sum

from orders.models import Order, Parcel, Product, Receipt


def open_orders():
    """Count the orders that still wait for their receipt or their parcel."""
    return Order.objects.filter(receipt=None).count() + Order.objects.filter(parcel=None).count()


def problems():
    """Return what cannot be right whatever still waits, each in a sentence."""
    found = [
        f"order {order.pk} has {order.parcels} parcels"
        for order in Order.objects.annotate(parcels=Count("parcel")).filter(parcels__gt=1)
    ]
    for product in Product.objects.all():
        packed = Parcel.objects.filter(order__product=product).aggregate(sum=Sum("order__quantity"))["sum"] or 0
        if product.delivered - packed != product.on_shelf:
            found.append(
                f"of {product} there should be {product.delivered - packed} on the shelf, not {product.on_shelf}"
            )
    return found


def summary():
    """Return the numbers, in a line."""
    counts = Order.objects.count(), Receipt.objects.count(), Parcel.objects.count()
    return "{} orders, {} receipts, {} parcels".format(*counts)
