"""Evaluation: find the data, let mteb score, save; the only border to mteb's tasks."""
