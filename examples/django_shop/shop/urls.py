"""The addresses."""

from django.contrib import admin
from django.urls import path
from orders import views

urlpatterns = [
    path("", views.front, name="front"),
    path("orders", views.place, name="place"),
    path("orders/<int:number>", views.show, name="show"),
    path("admin/", admin.site.urls),
]
