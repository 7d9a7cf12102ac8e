"""Saved scores sent to experiment trackers, each by its own client."""
