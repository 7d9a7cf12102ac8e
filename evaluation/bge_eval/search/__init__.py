"""Exact search over vectors that arrive in chunks."""
