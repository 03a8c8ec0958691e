"""What manage.py can be told to do here."""
