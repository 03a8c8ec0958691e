"""A script, which nobody should import."""

raise SystemExit("done")
