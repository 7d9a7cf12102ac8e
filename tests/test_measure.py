"""Measures: names, mteb's keys, values of single queries."""

from __future__ import annotations

import pytest

from bge_eval.errors import UsageError
from bge_eval.measures.measure import CUTOFFS, mteb_key, parse_measure, per_query
from bge_eval.records import Measure


@pytest.mark.parametrize(
    ("text", "name", "key"),
    [
        ("nDCG@10", "nDCG@10", "ndcg_at_10"),
        ("ndcg@10", "nDCG@10", "ndcg_at_10"),
        ("RR@10", "RR@10", "mrr_at_10"),
        ("mrr@100", "RR@100", "mrr_at_100"),
        ("R@1000", "R@1000", "recall_at_1000"),
        ("recall@5", "R@5", "recall_at_5"),
        ("MAP@100", "MAP@100", "map_at_100"),
        ("P@3", "P@3", "precision_at_3"),
        ("Success@1", "Success@1", "hit_rate_at_1"),
    ],
)
def test_names(text: str, name: str, key: str) -> None:
    assert str(parse_measure(text)) == name
    assert mteb_key(parse_measure(text)) == key


@pytest.mark.parametrize("text", ["nDGC@10", "nDCG", "nDCG@", "@10", "BLEU@10", "nDCG@7"])
def test_wrong_names(text: str) -> None:
    with pytest.raises(UsageError):
        parse_measure(text)


def test_wrong_name_suggests() -> None:
    with pytest.raises(UsageError, match="Did you mean nDCG@10"):
        parse_measure("nDGC@10")


def test_per_query_matrix() -> None:
    qrels = {
        "first": {"a": 1},
        "second": {"a": 1, "b": 0},
        "tie": {"a": 1},
        "graded": {"a": 2, "b": 1},
        "irrelevant only": {"a": 0},
        "nothing found": {"a": 1},
        "absent": {"a": 1},
    }
    run = {
        "first": {"a": 0.9, "b": 0.1},
        "second": {"b": 0.9, "a": 0.1},
        "tie": {"a": 0.5, "b": 0.5},  # trec_eval puts the higher id first
        "graded": {"b": 0.9, "a": 0.8},
        "irrelevant only": {"a": 0.9},
        "nothing found": {},
    }
    measures = [Measure("nDCG", 10), Measure("RR", 10), Measure("R", 100), Measure("RR", 1)]
    values = per_query(run, qrels, measures)
    discount = 0.6309297535714575  # 1 / log2(3)
    assert values["first"] == pytest.approx([1, 1, 1, 1])
    assert values["second"] == pytest.approx([discount, 0.5, 1, 0])
    assert values["tie"] == pytest.approx([discount, 0.5, 1, 0])
    ideal = 2 + 1 * discount
    assert values["graded"] == pytest.approx([(1 + 2 * discount) / ideal, 1, 1, 1])
    for query in ("irrelevant only", "nothing found", "absent"):
        assert values[query] == pytest.approx([0, 0, 0, 0])


def test_cutoffs_are_mtebs() -> None:
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    assert tuple(AbsTaskRetrieval.k_values) == CUTOFFS
