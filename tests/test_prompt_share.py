"""The prompt's share: paraphrases, the comparison over queries and prompts, the command."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bge_eval.cli.words import repeating_options
from bge_eval.errors import BgeEvalError, DamagedError, MissingError, UsageError
from bge_eval.experiment.file import read_experiment
from bge_eval.experiment.paraphrases import read_paraphrases
from bge_eval.records import Qrels
from bge_eval.results.saved import SavedResult, find_results
from bge_eval.statistics.crossed import (
    OverPrompts,
    PromptValues,
    compare_over_prompts,
    prompt_variances,
)
from conftest import CommandLine
from saved import save_run

# ── files of paraphrases ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'query = ["", "q: "]\ndocument = ["d: "]',
            [("", "d: "), ("q: ", "d: ")],
        ),
        ('pairs = [["a", "b"], ["c", "d"]]', [("a", "b"), ("c", "d")]),
        ('query = ["", "q: "]', [("", None), ("q: ", None)]),
    ],
)
def test_a_file_of_paraphrases_makes_settings(
    tmp_path: Path, text: str, expected: list[tuple[str, str | None]]
) -> None:
    file = tmp_path / "prompts.toml"
    file.write_text(text, encoding="utf-8")
    prompts = read_paraphrases(file)
    assert [(each.get("query-prompt"), each.get("document-prompt")) for each in prompts] == expected
    experiment = tmp_path / "experiment.toml"
    experiment.write_text(
        f'[[models]]\nmodel = "a"\nmax-length = [64, 128]\nparaphrases = "{file}"\n'
        '[[models]]\nmodel = "bm25"\n',
        encoding="utf-8",
    )
    settings = read_experiment(experiment, repeating_options(), {}).settings
    assert len(settings) == 2 * len(expected) + 1
    assert settings[-1].options == {"model": "bm25"}


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("query = [", DamagedError, "is no readable TOML file"),
        ('queries = ["a", "b"]', UsageError, "'queries' is no key of paraphrases. Did you mean q"),
        ('query = ["a", 3]', UsageError, "a prompt of query is a text, not 3"),
        ('query = "a"', UsageError, "query is a list of prompts, not 'a'"),
        ('query = ["a", "a"]', UsageError, "states a prompt of query twice: 'a'"),
        ('query = ["a"]', UsageError, "has one prompt, and a spread needs two"),
        ("", UsageError, "has no prompts"),
        ('pairs = [["a", "b"], "c"]', UsageError, "an entry of pairs is a query prompt and"),
        ('pairs = [["a", "b"], ["a", "b"]]', UsageError, "states a prompt of pairs twice"),
        ('query = ["a"]\npairs = [["a", "b"]]', UsageError, "has pairs, and query or document too"),
    ],
)
def test_a_wrong_file_of_paraphrases_is_refused(
    tmp_path: Path, text: str, kind: type[BgeEvalError], expected: str
) -> None:
    file = tmp_path / "prompts.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(kind) as error:
        read_paraphrases(file)
    assert expected in str(error.value)


def test_prompts_are_stated_once(tmp_path: Path) -> None:
    (tmp_path / "prompts.toml").write_text('query = ["", "q: "]', encoding="utf-8")
    file = tmp_path / "experiment.toml"
    named = f'paraphrases = "{tmp_path}/prompts.toml"'
    for text in (
        f'models = ["a"]\nquery-prompt = "x"\n{named}',
        f'{named}\n[[models]]\nmodel = "a"\n{named}',
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match="states query-prompt twice"):
            read_experiment(file, repeating_options(), {})
    file.write_text('models = ["a"]\nparaphrases = ["x"]', encoding="utf-8")
    with pytest.raises(UsageError, match="paraphrases is the name of a file of prompts, not"):
        read_experiment(file, repeating_options(), {})
    file.write_text('models = ["a"]\nparaphrases = "none.toml"', encoding="utf-8")
    with pytest.raises(MissingError, match="There is no file of paraphrases"):
        read_experiment(file, repeating_options(), {})


# ── the comparison ────────────────────────────────────────────────────────────────────────────


def values(rows: np.ndarray, kind: str = "") -> PromptValues:
    prompts = tuple((f"q{n}{kind}", "") for n in range(len(rows)))
    return PromptValues(prompts, (np.asarray(rows, np.float64),))


def test_the_test_is_clarks_min_f() -> None:
    """By his own formulas, from the two analyses of variance."""
    draw = np.random.default_rng(3)
    before = draw.normal(0.4, 0.3, (4, 60))
    after = before + draw.normal(0.08, 0.1, (4, 1)) + draw.normal(0, 0.2, (1, 60))
    tested = compare_over_prompts(values(before), values(after))
    difference = after - before
    by_query = stats.ttest_1samp(difference.mean(axis=0), 0).statistic ** 2
    by_prompt = stats.ttest_1samp(difference.mean(axis=1), 0).statistic ** 2
    min_f = by_query * by_prompt / (by_query + by_prompt)
    freedom = (by_query + by_prompt) ** 2 / (by_query**2 / 3 + by_prompt**2 / 59)
    assert tested.same_prompts
    assert tested.freedom == pytest.approx(freedom)
    assert tested.p_value == pytest.approx(stats.f.sf(min_f, 1, freedom))
    reach = stats.t.ppf(0.975, freedom) * abs(difference.mean()) / min_f**0.5
    assert tested.interval is not None
    assert tested.interval.low == pytest.approx(difference.mean() - reach)
    assert tested.interval.high == pytest.approx(difference.mean() + reach)


def test_own_prompts_of_two_models_are_two_samples() -> None:
    draw = np.random.default_rng(4)
    before, after = draw.normal(0.4, 0.3, (3, 80)), draw.normal(0.5, 0.3, (5, 80))
    tested = compare_over_prompts(values(before, "a"), values(after, "b"))
    of_prompts = before.mean(axis=1).var(ddof=1) / 3 + after.mean(axis=1).var(ddof=1) / 5
    of_queries = (after.mean(axis=0) - before.mean(axis=0)).var(ddof=1) / 80
    assert not tested.same_prompts
    assert tested.prompt_share == pytest.approx(of_prompts / (of_prompts + of_queries))


def test_the_order_of_prompts_does_not_matter() -> None:
    draw = np.random.default_rng(5)
    one, two = values(draw.random((4, 30))), values(draw.random((4, 30)))
    turned = two.ordered(two.prompts[::-1])
    assert compare_over_prompts(one, turned) == compare_over_prompts(one, two)


def test_the_interval_agrees_with_p_and_is_never_narrower_than_over_queries() -> None:
    draw = np.random.default_rng(6)
    outlived = set()
    for number in range(60):
        before = draw.random((3, 25))
        after = before + draw.normal(0.1, 0.3, 25) + draw.normal(0, 0.2 * draw.random(), (3, 1))
        tested: OverPrompts = compare_over_prompts(
            values(before), values(after), seed=number, resamples=199
        )
        interval, alone = tested.interval, tested.over_queries.interval
        assert interval is not None and alone is not None
        assert interval.low <= alone.low and alone.high <= interval.high
        assert (interval.low <= 0 <= interval.high) == (tested.p_value >= 0.05)
        outlived.add((tested.over_queries.p_value < 0.05, tested.p_value < 0.05))
    assert outlived == {(False, False), (True, False), (True, True)}


def test_combined_prompts_are_two_samples_and_pairs_are_one() -> None:
    crossed = [(q, d) for q in "abc" for d in "xy"]
    scores = np.array([0.1, 0.3, 0.2, 0.6, 0.4, 0.5])
    grid = scores.reshape(3, 2)
    both = prompt_variances(crossed, scores)
    assert [freedom for _, freedom in both] == [2.0, 1.0]
    assert both[0][0] == pytest.approx(grid.mean(axis=1).var(ddof=1) / 3)
    assert both[1][0] == pytest.approx(grid.mean(axis=0).var(ddof=1) / 2)
    for single in ([("a", "x"), ("b", "y"), ("c", "z")], [("a", "x"), ("b", "x"), ("c", "x")]):
        ((variance, freedom),) = prompt_variances(single, scores[:3])
        assert freedom == 2.0 and variance == pytest.approx(scores[:3].var(ddof=1) / 3)
    # Query prompts that belong to one of two document prompts are no more than two samples.
    nested = [("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")]
    means = np.array([scores[:2].mean(), scores[2:4].mean()])
    ((variance, freedom),) = prompt_variances(nested, scores[:4])
    assert freedom == 1.0 and variance == pytest.approx(means.var(ddof=1) / 2)
    assert prompt_variances([("a", "x")], [0.3]) == []


# ── the command ───────────────────────────────────────────────────────────────────────────────


def saved_with_prompt(root: Path, model: str, prompt: str, hits: int, **settings: object) -> Path:
    """Save a run in which the first ``hits`` of twenty queries have their document on top."""
    qrels: Qrels = {f"q{n}": {f"d{n}": 1} for n in range(20)}
    run = {q: ({f"d{q[1:]}": 1.0} if int(q[1:]) < hits else {"no": 1.0}) for q in qrels}
    identity = {"model": {"prompts": {"query": prompt, "document": ""}, "dtype": "float32"}}
    experiment = {"query_prompt": prompt.strip(": ") or "none", **settings}
    # mteb's folder has the names alone, so each prompt has an output of its own here.
    folder = root / (prompt.strip(": ") or "none")
    return save_run(
        folder, model, run, qrels, experiment=experiment, recorded={"identity": identity}
    )


def test_rows_that_differ_in_prompts_only_are_one_model(
    tmp_path: Path, bge_eval: CommandLine
) -> None:
    for hits, prompt in enumerate(("", "a: ", "b: ", "c: ")):
        saved_with_prompt(tmp_path / "one", "org/one", prompt, 4 + hits)
        saved_with_prompt(tmp_path / "two", "org/two", prompt, 18 + hits % 2)
        saved_with_prompt(tmp_path / "dim", "org/two", prompt, 9, truncate_dim=64)
    saved_with_prompt(tmp_path / "again", "org/one", "a: ", 5)
    folders = [path for path in tmp_path.glob("*/*") if path.is_dir()]
    done = bge_eval("prompts", *folders, "--format", "json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    rows = {each["model"]: each for each in content["models"]}
    assert set(rows) == {"org/one", "org/two", "org/two [truncate_dim=64]"}
    assert len(rows["org/one"]["prompts"]) == 4
    assert any("has the same prompts of org/one" in note for note in content["notes"])
    assert rows["org/one"]["mean"] == pytest.approx(np.mean([4, 5, 6, 7]) / 20)
    assert rows["org/one"]["sd"] == pytest.approx(np.std([4, 5, 6, 7], ddof=1) / 20)
    assert (rows["org/one"]["min"], rows["org/one"]["max"]) == (0.2, 0.35)
    sentences = [each["sentence"] for each in content["differences"]]
    assert len(sentences) == 3
    assert sentences[1].startswith("Mine: org/two is better than org/one whatever the prompt:")
    assert "org/two [truncate_dim=64] and org/one cannot be told apart" in sentences[2]
    printed = bge_eval("prompts", *folders)
    assert "best with query prompt 'c: ', worst with query prompt ''" in printed.stdout
    assert all(each in printed.stdout for each in sentences)
    text = bge_eval("prompts", *folders, "--format", "csv", "--models", "two").stdout
    assert len(list(csv.DictReader(io.StringIO(text)))) == 8
    for form in ("markdown", "latex", "html"):
        assert "0.27500" in bge_eval("prompts", *folders, "--format", form).stdout


def test_other_data_are_not_compared(tmp_path: Path, bge_eval: CommandLine) -> None:
    saved_with_prompt(tmp_path, "org/one", "a: ", 4)
    qrels: Qrels = {f"q{n}": {f"d{n}": 2} for n in range(20)}
    save_run(tmp_path / "other", "org/one", {q: {"no": 1.0} for q in qrels}, qrels)
    done = bge_eval("prompts", tmp_path / "a", tmp_path / "other")
    assert done.returncode == 2 and "the judgements differ" in done.stderr


def test_one_prompt_has_no_spread(tmp_path: Path, bge_eval: CommandLine) -> None:
    saved_with_prompt(tmp_path, "org/one", "a: ", 4)
    done = bge_eval("prompts", tmp_path / "a")
    assert done.returncode == 3 and "was run with one prompt" in done.stderr
    done = bge_eval("prompts", tmp_path / "a", "--models", "three")
    assert done.returncode == 3 and "No result in" in done.stderr


@pytest.mark.slow
def test_paraphrases_encode_the_documents_once(
    tmp_path: Path, bge_eval: CommandLine, small_scifact: Path, tiny_bge: Path
) -> None:
    (tmp_path / "prompts.toml").write_text('query = ["", "query: ", "ask: "]', encoding="utf-8")
    file = tmp_path / "experiment.toml"
    file.write_text(
        f'tasks = ["SciFact"]\ndata-dir = "{small_scifact}"\noutput = "{tmp_path / "out"}"\n'
        f'store = "{tmp_path / "store"}"\noffline = true\n'
        f'[[models]]\nmodel = "{tiny_bge}"\nparaphrases = "{tmp_path / "prompts.toml"}"\n'
        f'[[models]]\nmodel = "{tiny_bge}"\ntruncate-dim = 16\n'
        f'paraphrases = "{tmp_path / "prompts.toml"}"\n',
        encoding="utf-8",
    )
    listed = bge_eval("run", file, "--dry-run")
    assert "at most 6,083 texts" in listed.stderr  # mteb's: 5,183 documents, 3 times 300 queries
    done = bge_eval("run", file, "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert len(list(csv.DictReader(io.StringIO(done.stdout)))) == 6
    assert f"bge-eval prompts {tmp_path / 'out'}" in done.stderr
    results = [SavedResult(path) for path in find_results([tmp_path / "out"])]
    profiles = [result.record.profile for result in results]
    encoded = [profile.tokens.get("encode corpus", 0) for profile in profiles if profile]
    assert len(encoded) == 6 and sum(count > 0 for count in encoded) == 1
    shared = bge_eval("prompts", tmp_path / "out", "--format", "json")
    content = json.loads(shared.stdout)
    assert [len(each["prompts"]) for each in content["models"]] == [3, 3]
    (difference,) = content["differences"]
    assert difference["statistics"]["same_prompts"]
