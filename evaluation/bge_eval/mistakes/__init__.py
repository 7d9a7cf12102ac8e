"""Queries on which a run fails: their kinds, groups with intervals, and training data from them."""
