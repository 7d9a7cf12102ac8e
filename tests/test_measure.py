"""Measures: names, mteb's keys, values by query."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from bge_eval.errors import UsageError
from bge_eval.measures.expression import ir_measure
from bge_eval.measures.measure import Measure, parse_measure
from bge_eval.measures.mteb_keys import CUTOFFS, mteb_key, parse_key
from bge_eval.measures.per_query import per_query
from bge_eval.measures.registry import DEFINITIONS, Definition
from bge_eval.measures.rescore import judge


@pytest.mark.parametrize(
    ("text", "name", "key"),
    [
        ("nDCG@10", "nDCG@10", "ndcg_at_10"),
        ("ndcg@10", "nDCG@10", "ndcg_at_10"),
        ("RR@10", "RR@10", "mrr_at_10"),
        ("mrr@100", "RR@100", "mrr_at_100"),
        ("R@1000", "R@1000", "recall_at_1000"),
        ("recall@5", "R@5", "recall_at_5"),
        ("MAP@100", "AP@100", "map_at_100"),
        ("AP@20", "AP@20", "map_at_20"),
        ("P@3", "P@3", "precision_at_3"),
        ("Success@1", "Success@1", "hit_rate_at_1"),
    ],
)
def test_names(text: str, name: str, key: str) -> None:
    assert str(parse_measure(text)) == name
    assert parse_key(text) == mteb_key(parse_measure(text)) == key


@pytest.mark.parametrize("text", ["nDGC@10", "nDCG", "nDCG@", "@10", "BLEU@10", "nDCG@7"])
def test_wrong_names(text: str) -> None:
    with pytest.raises(UsageError):
        parse_key(text)


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


@pytest.mark.parametrize("text", ["AP(rel=2)@10", "Success(rel=2)@5", "Rprec", "R_cap@5", "P@7"])
def test_a_measures_text_gives_the_measure_again(text: str) -> None:
    measure = parse_measure(text)
    assert str(measure) == text
    assert parse_measure(str(measure)) == measure


@pytest.mark.parametrize("entry", DEFINITIONS, ids=lambda entry: entry.name)
def test_every_registered_measure_is_computed(entry: Definition) -> None:
    measure = Measure(entry.name, 10)
    if entry.compute is None:
        assert str(ir_measure(str(measure))) == str(measure)
    values = judge({"q": {"a": 2.0, "b": 1.0}}, {"q": {"a": 1}}, [measure])[measure]
    assert values.per_query.keys() == {"q"} and 0 < values.mean <= 1
    assert entry.source


TEXTS = [
    "nDCG@10",
    "nDCG(gains={0:0,1:3},dcg='exp-log2')@20",
    "AP(rel=2, judged_only=True)",
    "RBP(p=0.8)",
    "IPrec@0.1",
    "SDCG@5",
]
WRONG_TEXTS = [
    *("", "nDCG@", "nDCG(10)", "nDCG(**{'rel': 2})", "AP(rel=-1)", "AP(rel=[1])", "AP(rel=b'2')"),
    *(
        "nDCG+AP",
        "'nDCG'",
        "nDCG@(10+1)",
        "nDCG;AP",
        "no_measure@10",
        "AP(rel=2",
        "nDCG@...",
        "a=1",
    ),
]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="ir_measures 0.4.3 needs ast.Num")
@pytest.mark.filterwarnings("ignore:ast:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Attribute [ns] is:DeprecationWarning")
@pytest.mark.parametrize("text", [*TEXTS, *WRONG_TEXTS])
def test_expressions_are_read_as_ir_measures_reads_them(text: str) -> None:
    import ir_measures as untyped

    ir_measures: Any = untyped
    if text in WRONG_TEXTS:
        for read in (ir_measures.parse_measure, ir_measure):
            with pytest.raises((ValueError, NameError, TypeError, SyntaxError)):
                read(text)
        with pytest.raises(UsageError, match="is not a measure"):
            parse_measure(text)
        return
    theirs, own = ir_measures.parse_measure(text), ir_measure(text)
    assert type(own) is type(theirs)
    assert own.params == theirs.params


@pytest.mark.parametrize("text", ["AP(rel=2)", "R_cap@10", "Rprec"])
def test_measures_that_results_do_not_hold(text: str) -> None:
    assert mteb_key(parse_measure(text)) is None
    with pytest.raises(UsageError, match="`bge-eval rescore` computes"):
        parse_key(text)


def test_registered_measures_are_parsed_without_ir_measures() -> None:
    code = (
        "import sys; from bge_eval.measures.measure import parse_measures;"
        "parse_measures(['nDCG@10', 'map@5', 'R_cap@3']); assert 'ir_measures' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
