"""A task's corpus, queries and qrels, from where the user has them."""
