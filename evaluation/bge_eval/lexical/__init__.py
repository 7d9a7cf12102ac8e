"""Models that match words, not vectors."""
