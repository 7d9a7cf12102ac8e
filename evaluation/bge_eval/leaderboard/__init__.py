"""Saved results as a table: rows, averages, ranks, published models, costs."""
