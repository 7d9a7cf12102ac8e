"""Published scores to reproduce: the tables, what a score here amounts to beside one of them."""
