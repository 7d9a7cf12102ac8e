"""Files that a run saves: mteb's results, TREC runs, per-query scores, identities."""
