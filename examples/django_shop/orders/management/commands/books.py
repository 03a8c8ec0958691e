"""`manage.py books`: see whether they balance."""

from django.core.management.base import BaseCommand, CommandError

from orders import books


class Command(BaseCommand):
    """Print the numbers; end with 1 if something was done twice, or is still to be done."""

    help = "Shows whether every order was dealt with, and none twice."

    def handle(self, **options):
        """Look once."""
        self.stdout.write(books.summary())
        found = books.problems()
        if waiting := books.open_orders():
            found.append(f"{waiting} receipts and parcels are still to come")
        if found:
            raise CommandError("; ".join(found))
        self.stdout.write("Every order has one receipt and one parcel, and the shelf is right.")
