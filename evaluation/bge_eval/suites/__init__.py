"""Suites and tasks by name."""
