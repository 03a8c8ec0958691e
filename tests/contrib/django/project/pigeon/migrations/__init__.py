"""The tables of letters."""
