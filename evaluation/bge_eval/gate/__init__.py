"""The gate for continuous integration: baselines, rules, and the verdict on saved runs."""
