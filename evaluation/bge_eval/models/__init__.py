"""The models that can be evaluated, one file for each kind, and the opening of them by name."""
