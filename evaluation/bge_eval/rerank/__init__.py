"""The optional second stage: re-order the first candidates of a run."""
