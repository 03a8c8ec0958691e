"""The addresses."""

from django.contrib import admin
from django.urls import path
from pigeon import views

urlpatterns = [path("admin/", admin.site.urls), path("letters", views.letters)]
