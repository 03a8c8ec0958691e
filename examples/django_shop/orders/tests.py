"""The shop's own tests, as any project has them: `manage.py test`. Jobs are run in the transaction of the test."""

from django.test import TestCase

from graphile_worker_py.contrib.django import queue
from graphile_worker_py.contrib.django.testing import run_jobs
from orders import books
from orders.models import Order, Product


class PlacingOrders(TestCase):
    """An order and its jobs are there together, or not at all."""

    def place(self, card):
        """Order a teapot."""
        product = Product.objects.get(name="Teapot")
        return self.client.post("/orders", {"customer": "ann@example.org", "product": product.pk, "card": card})

    def test_an_order_is_packed_and_its_receipt_sent(self):
        """What is asked for is done, once."""
        number = self.place("4242").json()["order"]
        self.assertEqual(books.open_orders(), 2)
        self.assertEqual(sorted(run_jobs().tasks), ["orders.tasks.send_receipt", "pack"])
        self.assertEqual((books.open_orders(), books.problems()), (0, []))
        told = self.client.get(f"/orders/{number}").json()
        self.assertEqual((told["receipt"], told["parcels"]), ("SUCCESSFUL", 1))
        self.assertEqual(told["sent"], {"to": "ann@example.org"})

    def test_an_order_is_shown_when_nothing_is_known_of_its_receipt_any_more(self):
        """Results are kept for a day."""
        number = self.place("4242").json()["order"]
        queue.complete_jobs([int(Order.objects.get(pk=number).receipt_task)])
        self.assertEqual(self.client.get(f"/orders/{number}").json(), {"order": number, "parcels": 0})

    def test_a_declined_card_leaves_nothing(self):
        """Neither an order nor a job."""
        self.assertEqual(self.place("5555").status_code, 402)
        self.assertEqual((Order.objects.count(), len(queue.jobs())), (0, 0))

    def test_a_receipt_is_not_sent_twice(self):
        """Not even if the job is run again."""
        number = self.place("4242").json()["order"]
        run_jobs()
        queue.add_job("orders.tasks.send_receipt", {"args": [number]})
        run_jobs()
        self.assertEqual(books.summary(), "1 orders, 1 receipts, 1 parcels")

    def test_the_front_page_shows_what_there_is(self):
        """Goods and orders."""
        self.place("4242")
        page = self.client.get("/").content.decode()
        for text in ("Teapot", "24.50", "to be packed"):
            self.assertIn(text, page)
