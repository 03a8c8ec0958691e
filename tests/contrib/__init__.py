"""With frameworks: each in a folder of its own, with a small application."""
