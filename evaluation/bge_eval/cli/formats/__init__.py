"""The formats of output: one module for each, one registry."""
