"""What a run leaves behind: mteb's result files, TREC runs, per-query scores, identities."""
