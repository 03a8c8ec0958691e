"""What there is to buy, who has ordered it, and what was done about that."""

from django.db import models


class Product(models.Model):
    """Something to buy: how much of it was `delivered` to the shop, and how much still is `on_shelf`."""

    name = models.CharField(max_length=100, unique=True)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    delivered = models.PositiveIntegerField()
    on_shelf = models.PositiveIntegerField()

    def __str__(self):
        return self.name


class Order(models.Model):
    """An order that was paid for; `receipt_task` is the id of the task that sends its receipt."""

    customer = models.EmailField()
    product = models.ForeignKey(Product, on_delete=models.PROTECT)
    quantity = models.PositiveIntegerField(default=1)
    placed_at = models.DateTimeField(auto_now_add=True)
    receipt_task = models.CharField(max_length=64, blank=True, editable=False)

    def __str__(self):
        return f"Order {self.pk}"


class Receipt(models.Model):
    """A receipt that was sent, once for each order, though perhaps not at the first attempt."""

    order = models.OneToOneField(Order, on_delete=models.CASCADE)
    attempt = models.PositiveIntegerField()
    sent_at = models.DateTimeField(auto_now_add=True)


class Parcel(models.Model):
    """A parcel that was packed. Nothing here keeps an order from having two: the job must see to it."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE)
    packed_at = models.DateTimeField(auto_now_add=True)
