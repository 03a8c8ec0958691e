"""The shop's own tables in the admin; those of the jobs are there by themselves."""

from django.contrib import admin

from orders.models import Order, Parcel, Product, Receipt


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    """Products."""

    list_display = ("name", "price", "on_shelf")


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    """Orders."""

    list_display = ("__str__", "customer", "product", "quantity", "placed_at")
    list_filter = ("product",)


admin.site.register([Receipt, Parcel])
