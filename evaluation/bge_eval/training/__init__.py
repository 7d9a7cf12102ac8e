"""Checkpoints of a training that runs."""
