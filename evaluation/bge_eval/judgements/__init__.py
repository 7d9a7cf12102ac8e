"""Judged or not: what unjudged documents hide, and judgements of them by people or a model."""
