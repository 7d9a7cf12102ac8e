"""Faults of a data set: duplicates, leaks, broken texts, and what they could move in a score."""
