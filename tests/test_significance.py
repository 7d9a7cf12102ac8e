"""What single queries say of a table: intervals, ranks, and what cannot be told from the best."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from scipy import stats

from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.costs import Costs, costs, size_name
from bge_eval.leaderboard.reading import leaderboard
from bge_eval.leaderboard.rows import Column
from bge_eval.leaderboard.significance import Evidence, row_costs
from bge_eval.measures.mteb_keys import MAIN_KEY, measure_of_key, parse_key, stored_name
from bge_eval.records import Excerpts, Qrels, Run
from bge_eval.results.saved import SavedResult, find_results
from saved import save_run

QUERIES = [f"q{i}" for i in range(60)]
QRELS: Qrels = {query: {f"{query}-gold": 1} for query in QUERIES}


def a_run(seed: int, best: int) -> Run:
    """Put the relevant document at a drawn rank, 0 to ``best``."""
    draw = random.Random(seed)
    run: Run = {}
    for query in QUERIES:
        found = [f"d{i}" for i in range(12)]
        found.insert(draw.randint(0, best), f"{query}-gold")
        run[query] = {document: 1 - i / 20 for i, document in enumerate(found)}
    return run


def board_of(root: Path) -> Leaderboard:
    return leaderboard(find_results([root]), measure="nDCG@10", key=MAIN_KEY)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_run(tmp_path, "a/good", a_run(1, 2), QRELS)
    save_run(tmp_path, "b/alike", a_run(2, 2), QRELS)
    save_run(tmp_path, "c/bad", a_run(3, 9), QRELS)
    return tmp_path


def test_ranks_ties_and_intervals(root: Path) -> None:
    board = board_of(root)
    found = Evidence(board, MAIN_KEY).task(board.columns[0])
    by_model = {row.model: it for row, it in zip(board.rows, found, strict=True)}
    best, second, last = (by_model[row.model] for row in board.rows)
    assert best is not None and second is not None and last is not None
    assert (best.rank, second.rank, last.rank) == (1, 2, 3)
    assert (best.tied, second.tied, last.tied) == (False, True, False)
    assert (best.tested, second.tested, last.tested) == (True, True, True)
    assert best.p_value is None and second.p_value is not None and last.p_value is not None
    assert last.p_value < 0.05 <= second.p_value
    assert last.queries == 60
    _, values = SavedResult(board.rows[2].results["Mine"]).per_query(("default", "test"))
    scipys = stats.bootstrap(([row[0] for row in values.values()],), lambda x, axis: x.mean(axis))
    assert last.low == pytest.approx(scipys.confidence_interval.low, abs=0.01)
    assert last.high == pytest.approx(scipys.confidence_interval.high, abs=0.01)


def test_other_queries_are_never_tied(tmp_path: Path) -> None:
    save_run(tmp_path, "a/good", a_run(1, 2), QRELS)
    fewer = {query: QRELS[query] for query in QUERIES[:50]}
    save_run(tmp_path, "b/alike", a_run(2, 2), fewer)
    board = board_of(tmp_path)
    found = Evidence(board, MAIN_KEY).task(board.columns[0])
    assert [it.tied for it in found if it is not None] == [False, False]
    assert [it.untested for it in found if it is not None] == [False, True]


def test_equal_systems_are_rarely_denied(tmp_path: Path) -> None:
    """Of eight equal systems, testing each against the best denied one in half of the tables."""
    denied = 0
    for table in range(12):
        root = tmp_path / str(table)
        for system in range(8):
            save_run(root, f"org/m{system}", a_run(1000 + 10 * table + system, 5), QRELS)
        board = board_of(root)
        standings = Evidence(board, MAIN_KEY).task(board.columns[0])
        assert all(it is not None and it.tested for it in standings)
        denied += any(it is not None and it.rank > 1 and not it.tied for it in standings)
    assert denied <= stats.binom.ppf(0.999, 12, 0.05)


def test_a_mean_needs_every_task(root: Path) -> None:
    for model, seed in (("a/good", 4), ("b/alike", 5)):
        save_run(root, model, a_run(seed, 2), QRELS, task="Other")
    board = board_of(root)
    found = Evidence(board, MAIN_KEY).mean({"Mine": 0.5, "Other": 0.5})
    by_model = {row.model: it for row, it in zip(board.rows, found, strict=True)}
    assert by_model["c/bad"] is None
    good = by_model["a/good"]
    assert good is not None and good.queries == 120
    assert good.score == pytest.approx(board.rows[0].average(board.tasks) or 0, abs=0.05)


def test_queries_that_do_not_give_the_score_say_nothing(root: Path) -> None:
    path = next(root.rglob("b__alike/*/Mine.json"))
    path.write_text(path.read_text().replace('"main_score": 0.', '"main_score": 0.1'))
    board = board_of(root)
    by_model = {
        row.model: it
        for row, it in zip(
            board.rows, Evidence(board, MAIN_KEY).task(board.columns[0]), strict=True
        )
    }
    alike, good = by_model["b/alike"], by_model["a/good"]
    assert alike is not None and alike.low is None and not alike.tied and not alike.tested
    assert good is not None and good.low is not None


def test_a_measure_that_is_not_kept_is_computed(root: Path) -> None:
    key = parse_key("R@5")
    board = leaderboard(find_results([root]), measure="R@5", key=key)
    found = Evidence(board, key).task(board.columns[0])
    assert all(it is not None and it.low is not None and it.low <= it.score for it in found)


@pytest.mark.parametrize("name", ["nDCG@10", "RR@5", "R@100", "MAP@1000", "P@1", "Success@3"])
def test_keys_are_measures(name: str) -> None:
    measure = measure_of_key(parse_key(name))
    assert measure is not None and stored_name(measure) == name


@pytest.mark.parametrize("key", ["cosine_spearman", "accuracy", "nauc_ndcg_at_10_max", ""])
def test_other_keys_are_none(key: str) -> None:
    assert measure_of_key(key) is None


def test_costs(tmp_path: Path) -> None:
    recorded = {
        "seconds": {"load": 9.0, "encode queries": 1.0, "encode corpus": 3.0, "search": 1.0},
        "counts": {"load": 5, "encode queries": 10, "encode corpus": 90},
        "tokens": {"encode queries": 80, "encode corpus": 9000},
        "settings": {"dimension": 384, "parameters": 22_713_216, "device": "cuda:0"},
        "environment": {"gpus": ["NVIDIA L4"], "processor": "CPU", "cores": 8},
    }
    first = save_run(tmp_path, "a/b", a_run(1, 2), QRELS, recorded=recorded)
    expected = Costs(
        seconds=5.0,
        query_tokens_per_second=80.0,
        document_tokens_per_second=3000.0,
        queries_per_second=10.0,
        documents_per_second=30.0,
        parameters=22_713_216,
        dimension=384,
        machine="NVIDIA L4",
    )
    assert costs([SavedResult(first)]) == expected
    again = {"reranker": "r/tiny@12345678", "rerank_top_k": 50}
    recorded = {"seconds": {"rerank": 7.0}}
    save_run(tmp_path, "a/b", a_run(2, 2), QRELS, experiment=again, recorded=recorded)
    board = board_of(tmp_path)
    second = row_costs(board, board.rows[1])
    assert (second.seconds, second.parameters, second.dimension) == (12.0, 22_713_216, 384)


def test_stored_vectors_are_no_speed(tmp_path: Path) -> None:
    recorded: dict[str, dict[str, float]] = {
        "seconds": {"encode queries": 0.1, "encode corpus": 3.9, "store": 0.1, "search": 1.0},
        "counts": {"encode queries": 10, "encode corpus": 90, "store": 20},
        "tokens": {"encode corpus": 7800},
    }
    partly = save_run(tmp_path, "a/b", a_run(1, 2), QRELS, recorded=recorded)
    assert costs([SavedResult(partly)]) == Costs(document_tokens_per_second=2000.0)
    recorded["counts"]["store"] = 100
    recorded["tokens"] = {}
    whole = save_run(tmp_path, "a/b", a_run(1, 2), QRELS, task="Other", recorded=recorded)
    assert costs([SavedResult(whole)]) == Costs()


def test_the_same_model_has_the_same_rates_whatever_was_in_the_store(tmp_path: Path) -> None:
    """One kind of text at a time: a run of which only the queries were new is not faster."""
    rates = []
    for task, corpus in (("Both", 1), ("QueriesAlone", 0)):
        recorded = {
            "seconds": {
                "tokenise": 0.5 + corpus,
                "encode queries": 0.5,
                "encode corpus": 9 * corpus,
            },
            "counts": {"encode queries": 50, "encode corpus": 90, "store": 90 * (1 - corpus)},
            "tokens": {"encode queries": 1000} | ({"encode corpus": 2000} if corpus else {}),
        }
        path = save_run(tmp_path, "a/b", a_run(1, 2), QRELS, task=task, recorded=recorded)
        rates.append(costs([SavedResult(path)]))
    assert [rate.query_tokens_per_second for rate in rates] == pytest.approx([1000.0, 1000.0])
    assert rates[0].document_tokens_per_second == pytest.approx(200.0)
    assert rates[1].document_tokens_per_second is None
    assert rates[0].queries_per_second == pytest.approx(50.0)
    assert rates[1].queries_per_second is None


def test_what_is_not_known_is_none(tmp_path: Path) -> None:
    known = save_run(tmp_path, "a/b", a_run(1, 2), QRELS, recorded={"seconds": {"search": 2.0}})
    unknown = save_run(tmp_path, "a/b", a_run(1, 2), QRELS, task="Other")
    assert costs([SavedResult(known)]).seconds == 2.0
    assert costs([SavedResult(known), SavedResult(unknown)]) == Costs()


@pytest.mark.parametrize(
    ("parameters", "said"), [(22_713_216, "23M"), (7_110_000_000, "7.1B"), (950, "950")]
)
def test_sizes(parameters: int, said: str) -> None:
    assert size_name(parameters) == said


def aggregate(root: Path, model: str, *parts: str) -> None:
    """Save a result that averages others of one model."""
    folder = next(root.rglob(f"{model}/*/{parts[0]}.json")).parent
    scores = [json.loads((folder / f"{part}.json").read_text())["scores"] for part in parts]
    main = sum(each["test"][0]["main_score"] for each in scores) / len(scores)
    entry = {"hf_subset": "default", "main_score": main}
    (folder / "Whole.json").write_text(json.dumps({"scores": {"test": [entry]}}))
    (folder / "Whole").mkdir()
    record = {"aggregate_of": parts, "main_measure": "ndcg_at_10", "files": [], "identity": {}}
    (folder / "Whole" / "run.json").write_text(json.dumps(record))


def test_an_aggregate_costs_what_its_parts_cost(tmp_path: Path) -> None:
    for task, seconds in (("One", 1000.0), ("Two", 100.0), ("Other", 10.0)):
        recorded = {"seconds": {"search": seconds}}
        save_run(tmp_path, "a/b", a_run(1, 2), QRELS, task=task, recorded=recorded)
    aggregate(tmp_path, "a__b", "One", "Two")
    board = board_of(tmp_path)
    assert board.tasks == ("Other", "Whole")
    assert row_costs(board, board.rows[0]).seconds == 1110.0
    next(tmp_path.rglob("Two/run.json")).unlink()
    assert row_costs(board, board.rows[0], "Whole").seconds is None


def test_a_part_that_is_also_a_column_counts_for_both(tmp_path: Path) -> None:
    for task, seed in (("One", 1), ("Two", 5)):
        save_run(tmp_path, "a/b", a_run(seed, 2 * seed), QRELS, task=task)
    aggregate(tmp_path, "a__b", "One", "Two")
    columns = [Column("One", main="ndcg_at_10"), Column("Whole", main="ndcg_at_10", parts=(
        Column("One", main="ndcg_at_10"), Column("Two", main="ndcg_at_10")))]  # fmt: skip
    for order in (columns, columns[::-1]):
        paths = find_results([tmp_path])
        board = leaderboard(paths, measure="nDCG@10", key=MAIN_KEY, columns=order)
        weights = dict.fromkeys(board.tasks, 0.5)
        [standing] = Evidence(board, MAIN_KEY).mean(weights)
        assert standing is not None and standing.low is not None and standing.high is not None
        assert standing.low < standing.score < standing.high


def test_texts_and_judgements_that_were_removed(tmp_path: Path) -> None:
    """Whoever keeps a collection to himself removes them; the rest stays readable."""
    path = save_run(tmp_path, "a/b", a_run(1, 2), QRELS)
    path.with_name("Mine.texts.jsonl.gz").unlink()
    path.with_name("Mine.qrels.tsv.gz").unlink()
    assert SavedResult(path).texts(("default", "test")) == Excerpts()
    key = parse_key("R@5")
    board = leaderboard(find_results([tmp_path]), measure="R@5", key=key)
    [standing] = Evidence(board, key).task(board.columns[0])
    assert standing is not None and standing.low is None
