"""What the shop has to sell."""

from django.db import migrations

GOODS = {"Teapot": "24.50", "Kettle": "39.00", "Tea, a pound": "12.80"}


def deliver(apps, _):
    """Put a good deal of each on the shelf."""
    product = apps.get_model("orders", "Product")
    for name, price in GOODS.items():
        product.objects.get_or_create(name=name, defaults={"price": price, "delivered": 10_000, "on_shelf": 10_000})


class Migration(migrations.Migration):
    """Let it be delivered."""

    dependencies = [("orders", "0001_initial")]
    operations = [migrations.RunPython(deliver, migrations.RunPython.noop)]
