"""The worker: one room per concern; `pool` puts them together."""
