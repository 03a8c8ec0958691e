"""Side by side with Node's workers: real ones, at pinned versions."""
