"""`bge-eval reproduce`: the tables, the verdicts, what is missing, what is done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bge_eval.errors import DamagedError, UsageError
from bge_eval.reproduction.tables import Verdict, named_tables, read_table, tables
from conftest import BUILTIN, CommandLine

HEAD = 'description = "d"\nsource = "s"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "own.toml"
    path.write_text(HEAD + text, encoding="utf-8")
    return path


def test_the_tables_of_the_package() -> None:
    every = tables()
    assert {"minilm", "bge-en", "bge-m3"} <= set(every)
    claims = every["minilm"].claims
    assert len(claims) == len({(each.task, each.subset, each.measure) for each in claims}) == 11
    assert all(each.model == BUILTIN and each.source for each in claims)


def test_a_verdict_follows_the_tolerances(tmp_path: Path) -> None:
    text = '[[score]]\nmodel = "m"\ntask = "t"\nscore = 0.64508\ntolerance = 1e-5\nclose = 1e-3\n'
    (claim,) = read_table(write(tmp_path, text)).claims
    expected = {
        0.64508: Verdict.OK,
        0.64509: Verdict.OK,
        0.64507: Verdict.OK,
        0.645095: Verdict.CLOSE,
        0.64608: Verdict.CLOSE,
        0.6461: Verdict.OFF,
        0.0: Verdict.OFF,
    }
    assert {score: claim.verdict(score) for score in expected} == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[score]", "is no readable TOML file"),
        ("scores = 3", "'scores' is no key. Did you mean score"),
        ('[[score]]\ntask = "t"\nscore = 0.5\ntolerance = 0.1', "model is a text, not None"),
        ('[[score]]\nmodel = "m"\ntask = "t"\nscore = 64.5\ntolerance = 0.1', "score is a number"),
        ('[[score]]\nmodel = "m"\ntask = "t"\nscore = 0.5', "tolerance is a number"),
        ('[[score]]\nmodel = "m"\ntask = "t"\nvalue = 0.5', "'value' is no key"),
        ('[[published]]\nmodels = "m"\ntolerance = 0.1', "models is a list of texts"),
        ("[defaults]\nscore = 1", "'score' is no key"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(DamagedError) as error:
        read_table(write(tmp_path, text))
    assert expected in str(error.value)


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(UsageError, match=r"There is no table 'minilmm'\. Did you mean minilm"):
        named_tables(["minilmm"])


def test_what_is_at_hand_runs_once_and_the_rest_is_named(
    tmp_path: Path, bge_eval: CommandLine
) -> None:
    """The demo ships with the package; its real score is 0.58925."""
    demo = f'[[score]]\nmodel = "{BUILTIN}"\ntask = "BgeEvalDemo"\n'
    table = write(
        tmp_path,
        f"{demo}score = 0.58925\ntolerance = 1e-4\n"
        f'{demo}measure = "R@100"\nscore = 0.99\ntolerance = 1e-4\nclose = 0.5\n'
        f'{demo}measure = "RR@10"\nscore = 0.1\ntolerance = 1e-4\n'
        f'[[score]]\nmodel = "{BUILTIN}"\ntask = "NFCorpus"\nscore = 0.3\ntolerance = 1e-4\n'
        '[[score]]\nmodel = "org/absent"\ntask = "BgeEvalDemo"\nscore = 0.3\ntolerance = 1e-4\n',
    )
    output = ["--output", tmp_path / "out", "--data-dir", tmp_path]
    listed = bge_eval("reproduce", table, *output, "--dry-run", "--format", "json")
    assert listed.returncode == 0 and not (tmp_path / "out").exists()
    assert json.loads(listed.stdout)["counts"] == {"to run": 3, "missing": 2}
    done = bge_eval("reproduce", table, *output, "--format", "json")
    assert done.returncode == 1, done.stderr  # one is off
    rows = json.loads(done.stdout)["scores"]
    assert [row["verdict"] for row in rows] == ["OK", "close", "off", "missing", "missing"]
    assert rows[0]["score"] == pytest.approx(0.58925, abs=1e-4)
    assert rows[3]["fetch_data"] == f"bge-eval data fetch --tasks NFCorpus --data-dir {tmp_path}"
    assert rows[4]["fetch_model"] == "hf download org/absent" and not rows[4]["fetch_data"]
    assert "BgeEvalDemo RR@10: off" in done.stderr
    again = bge_eval("reproduce", table, *output)
    assert again.returncode == 1 and "already done with this identity" in again.stderr
    assert "missing model: hf download org/absent    (1 scores)" in again.stdout
    assert "missing data: bge-eval data fetch --tasks NFCorpus" in again.stdout
    assert "5 scores: 1 OK, 1 close, 1 off, 2 missing." in again.stdout
    listed = bge_eval("reproduce", table, *output, "--dry-run", "--format", "json")
    assert json.loads(listed.stdout)["counts"]["OK"] == 1  # done before
    only = bge_eval("reproduce", table, *output, "--models", "absent")
    assert only.returncode == 3
    none = bge_eval("reproduce", table, *output, "--models", "other")
    assert none.returncode == 2 and "No score of own is of these models" in none.stderr


@pytest.mark.slow
def test_a_copy_of_a_model_is_taken_from_the_folder(
    tmp_path: Path, bge_eval: CommandLine, minilm_folder: Path
) -> None:
    shutil.copytree(minilm_folder, tmp_path / "models" / "some-name")
    table = write(
        tmp_path,
        '[[score]]\nmodel = "org/some-name"\ntask = "BgeEvalDemo"\nscore = 0.58925\n'
        "tolerance = 1e-4\n",
    )
    done = bge_eval(
        *("reproduce", table, "--output", tmp_path / "out", "--model-dir", tmp_path / "models")
    )
    assert done.returncode == 0, done.stderr
    assert "1 scores: 1 OK." in done.stdout


@pytest.mark.slow
def test_the_published_scores_of_bge_are_listed(tmp_path: Path, bge_eval: CommandLine) -> None:
    listed = bge_eval(
        *("reproduce", "bge-en", "bge-m3", "--tasks", "SciFact", "--dry-run", "--format", "json"),
        *("--data-dir", tmp_path, "--output", tmp_path / "out"),
    )
    assert listed.returncode == 0, listed.stderr
    rows = json.loads(listed.stdout)["scores"]
    published = {row["model"]: row["published"] for row in rows}
    assert published["BAAI/bge-base-en-v1.5"] == 0.74345
    assert len(published) == 4 and all(row["verdict"] == "missing" for row in rows)
    assert rows[0]["command"] == f"bge-eval run --model {rows[0]['model']} --tasks SciFact"
