"""Queue, as its users see it: what is stored, what comes back, what is refused."""
