"""Measures by name, their values for single queries, rescoring of saved runs."""
