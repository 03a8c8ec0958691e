"""What visitors see and do."""

from decimal import Decimal

from django.db import transaction
from django.http import JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from orders.models import Order, Product
from orders.tasks import pack, send_receipt

try:
    from django.tasks.exceptions import TaskResultDoesNotExist
except ImportError:  # before Django 6.0
    from django_tasks.exceptions import TaskResultDoesNotExist


class Declined(Exception):
    """Stand for a bank that says no."""


def charge(card, amount):
    """Ask the bank for the money; as banks do, it answers last, when all else has been written."""
    if not card.startswith("4") or amount > Decimal(1000):
        raise Declined


@require_GET
@ensure_csrf_cookie
def front(request):
    """Show what there is, and the latest orders."""
    orders = Order.objects.select_related("product", "receipt").prefetch_related("parcel_set").order_by("-pk")[:20]
    return render(request, "orders/front.html", {"products": Product.objects.order_by("name"), "orders": orders})


@require_POST
def place(request):
    """Take an order and add its jobs in one transaction: if the bank declines, there was neither."""
    product = get_object_or_404(Product, pk=request.POST["product"])
    try:
        with transaction.atomic():
            order = Order.objects.create(
                customer=request.POST["customer"], product=product, quantity=int(request.POST.get("quantity", 1))
            )
            pack.add_job({"order": order.pk}, job_key=f"pack:{order.pk}")
            order.receipt_task = send_receipt.enqueue(order.pk).id
            order.save(update_fields=["receipt_task"])
            charge(request.POST["card"], product.price * order.quantity)
    except Declined:
        return JsonResponse({"error": "the card was declined"}, status=402)
    if "text/html" in request.headers.get("Accept", ""):
        return redirect("front")
    return JsonResponse({"order": order.pk}, status=201)


@require_GET
def show(request, number):
    """Tell what became of an order, and, for as long as that is kept, of the task that sends its receipt."""
    order = get_object_or_404(Order, pk=number)
    told = {"order": order.pk, "parcels": order.parcel_set.count()}
    try:
        result = send_receipt.get_result(order.receipt_task)
    except TaskResultDoesNotExist:
        return JsonResponse(told)
    sent = result.return_value if result.status == "SUCCESSFUL" else None
    return JsonResponse({**told, "receipt": result.status, "attempts": result.attempts, "sent": sent})
