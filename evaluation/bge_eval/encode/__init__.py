"""From a model's name to vectors: find its files, read its settings, encode, adapt to mteb."""
