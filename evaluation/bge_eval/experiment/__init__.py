"""Experiments: many settings in one file."""
