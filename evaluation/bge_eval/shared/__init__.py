"""Folders that several processes write: their locks, and what killed processes left there."""
