"""The gate of continuous integration: baselines, rules, and the verdict on a run."""
