"""Measures where ir_measures' tools fail: queries without positives, ids, missing tools."""

from __future__ import annotations

import shutil

import pytest

from bge_eval.errors import UsageError
from bge_eval.measures.measure import Measure, parse_measure
from bge_eval.measures.rescore import judge
from bge_eval.measures.values import Values
from bge_eval.records import Qrels, Run

RUN: Run = {
    "q one": {"d/1": 3.0, "d 2": 2.0, "d3": 1.0},
    "q2": {"d3": 2.0, "d/1": 1.0},
    "q3": {"d3": 1.0},
}
QRELS: Qrels = {
    "q one": {"d/1": 0, "d 2": 2},
    "q2": {"d3": 0},
    "q3": {"d3": 1},
    "q4": {"d3": 1},
}


def values(name: str, run: Run = RUN, qrels: Qrels = QRELS) -> Values:
    measure: Measure = parse_measure(name)
    return judge(run, qrels, [measure])[measure]


def test_accuracy_of_a_query_without_a_positive_is_zero() -> None:
    computed = values("Accuracy@10")
    # "q one": one of the two others stands above the relevant document.
    assert computed.per_query == {"q one": 0.5, "q2": 0.0, "q3": 1.0, "q4": 0.0}
    assert computed.mean == pytest.approx(1.5 / 4)


@pytest.mark.skipif(shutil.which("perl") is None, reason="gdeval is a Perl program")
@pytest.mark.parametrize("name", ["ERR@20", "nDCG(dcg='exp-log2')@20"])
def test_gdeval_reads_ids_of_any_kind(name: str) -> None:
    numbers = {query: str(number) for number, query in enumerate(QRELS, start=7)}
    documents = {"d/1": "d1", "d 2": "d2", "d3": "d3"}
    run = {numbers[q]: {documents[d]: s for d, s in of.items()} for q, of in RUN.items()}
    qrels = {numbers[q]: {documents[d]: g for d, g in of.items()} for q, of in QRELS.items()}
    ours, plain = values(name), values(name, run, qrels)
    assert ours.mean == plain.mean > 0
    assert ours.per_query == {query: plain.per_query[number] for query, number in numbers.items()}
    assert ours.mean == pytest.approx(sum(ours.per_query.values()) / len(QRELS), abs=1e-5)


def test_err_is_the_published_formula() -> None:
    """Grade 2 of at most 2^4 at rank 2: (2^2 − 1) / 16 / 2, by Chapelle et al., CIKM 2009."""
    if shutil.which("perl") is None:
        pytest.skip("gdeval is a Perl program")
    assert values("ERR@20").per_query["q one"] == pytest.approx((2**2 - 1) / 16 / 2, abs=1e-5)


def test_mixed_measures_keep_their_order_and_values() -> None:
    measures = [parse_measure(name) for name in ("Accuracy@10", "nDCG@10", "R_cap@5", "ERR@20")]
    computed = judge(RUN, QRELS, measures)
    assert list(computed) == measures
    assert all(set(each.per_query) == set(QRELS) for each in computed.values())


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("RBP(p=0.8,rel=1)", "cwl-eval does \\("),
        ("RBP(p=0.8)", "cwl-eval does with rel given"),
        ("alpha_nDCG@10", "pyndeval does"),
    ],
)
def test_a_missing_tool_is_named(name: str, tool: str) -> None:
    with pytest.raises(UsageError, match=tool) as caught:
        parse_measure(name)
    assert "pip install ir-measures[" in str(caught.value)
