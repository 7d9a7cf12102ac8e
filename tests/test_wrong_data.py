"""Every layout with every fault: exit code 3, one paragraph, nothing half-written."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import BUILTIN, CommandLine, write_beir
from test_layouts import (
    STS,
    as_flagembedding,
    as_parquet_repository,
    as_repository,
    as_zip,
    readme,
    reranking_repository,
    rows,
    write_rows,
)

Fault = Callable[[Path], None]


def cut(name: str, keep: float = 0.6) -> Fault:
    """Leave only the first part of a file, as a download that broke off."""

    def damage(folder: Path) -> None:
        path = next(folder.rglob(name)) if not Path(f"{folder}.zip").exists() else None
        path = path or Path(f"{folder}.zip")
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])

    return damage


def without(name: str) -> Fault:
    def damage(folder: Path) -> None:
        for path in list(folder.rglob(name)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def renamed(name: str, new: str) -> Fault:
    def damage(folder: Path) -> None:
        path = next(folder.rglob(name))
        path.rename(path.with_name(new))

    return damage


def doubled(name: str) -> Fault:
    """Every line twice."""

    def damage(folder: Path) -> None:
        path = next(folder.rglob(name))
        path.write_bytes(path.read_bytes() * 2)

    return damage


def last_line(name: str) -> Fault:
    """Lose the last line of a file."""

    def damage(folder: Path) -> None:
        path = next(folder.rglob(name))
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))

    return damage


def in_two(name: str) -> Fault:
    """Leave the first of two files."""

    def damage(folder: Path) -> None:
        path = next(folder.rglob(name))
        path.rename(path.with_name(path.name.replace("of-00001", "of-00002")))

    return damage


def zipped(name: str) -> Fault:
    """Cut a gzipped file."""

    def damage(folder: Path) -> None:
        path = next(folder.rglob(name))
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes())[:-9])
        path.unlink()

    return damage


def each_parquet_row_twice(name: str) -> Fault:
    def damage(folder: Path) -> None:
        import pandas as pd

        path = next(folder.rglob(name))
        frame = pd.read_parquet(path)
        pd.concat([frame, frame]).to_parquet(path)

    return damage


def beir(folder: Path) -> None:
    write_beir(
        folder,
        [{"_id": f"d{n}", "title": "", "text": f"document number {n}"} for n in range(6)],
        {f"q{n}": f"question number {n}" for n in range(3)},
        [(f"q{n}", f"d{n}", 1) for n in range(3)],
    )


def flagembedding(folder: Path) -> None:
    beir(folder)
    as_flagembedding(folder)


def zip_of_beir(folder: Path) -> None:
    beir(folder)
    as_zip(folder)


def repository(folder: Path) -> None:
    beir(folder)
    as_repository(folder)


def small_corpus(folder: Path) -> None:
    """Its last document is judged."""
    corpus = [{"_id": f"d{n}", "title": "", "text": f"number {n}"} for n in range(2)]
    write_beir(folder, corpus, {"q": "one"}, [("q", "d1", 1)])
    as_repository(folder)


def parquet(folder: Path) -> None:
    beir(folder)
    as_parquet_repository(folder)


def sts_rows(folder: Path) -> None:
    write_rows(folder / "test.jsonl", STS)


def sts_repository(folder: Path) -> None:
    write_rows(folder / "data" / "test.jsonl", STS)
    readme(folder, {"default": {"test": "data/test.jsonl"}})


def sts_parquet(folder: Path) -> None:
    import pandas as pd

    (folder / "data").mkdir(parents=True)
    pd.DataFrame(STS).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    readme(folder, {"default": {"test": "data/test-*"}})


def classification(folder: Path) -> None:
    content = [{"text": f"card {n}", "label": n % 2} for n in range(20)]
    for split in ("train", "test"):
        write_rows(folder / f"{split}.jsonl", content)


def reranking_rows(folder: Path) -> None:
    write_rows(
        folder / "test.jsonl",
        [{"query": "a", "positive": ["ab"], "negative": ["c"]} for _ in range(3)],
    )


def reranking(folder: Path) -> None:
    reranking_repository(folder, candidates=True)


def xquad(folder: Path) -> None:
    for language, text in (("de", "eine Frage"), ("zh", "一个问题")):
        write_beir(
            folder / language,
            [{"_id": "d", "text": text}],
            {"q": text},
            [("q", "d", 1)],
            split="validation",
        )


def translated(folder: Path) -> None:
    """Put the German files where the Chinese ones are expected."""
    shutil.rmtree(folder / "zh")
    shutil.copytree(folder / "de", folder / "zh")


def in_english(folder: Path) -> None:
    write_rows(folder / "test.jsonl", [{**row, "sentence2": "English"} for row in STS[:2]])


def nothing(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


NQ, ST, BK, AU, XQ = (
    "SciFact",
    "STSBenchmark",
    "Banking77Classification",
    "AskUbuntuDupQuestions",
    "XQuADRetrieval",
)

CASES: dict[str, tuple[str, Callable[[Path], None], Fault, str]] = {
    # (a) BEIR folders and zips
    "a, empty folder": (NQ, beir, nothing, "It holds: nothing"),
    "a, no queries": (NQ, beir, without("queries.jsonl"), "has no queries.jsonl"),
    "a, no judgements": (NQ, beir, without("qrels"), "Splits with qrels there: none"),
    "a, corpus cut": (NQ, beir, cut("corpus.jsonl"), "not JSON"),
    "a, queries cut": (NQ, beir, cut("queries.jsonl"), "queries.jsonl, line 2: not JSON"),
    "a, judgements cut": (NQ, beir, cut("test.tsv", 0.93), "expected 3 columns"),
    "a, gzip cut": (NQ, beir, zipped("corpus.jsonl"), "cut off"),
    "a, zip cut": (NQ, zip_of_beir, cut("*.zip"), "is no zip, or cut off"),
    "a, split": (NQ, beir, renamed("test.tsv", "dev.tsv"), "Splits with qrels there: dev"),
    "a, corpus doubled": (NQ, beir, doubled("corpus.jsonl"), "'d0' was already used in line 1"),
    "a, queries doubled": (NQ, beir, doubled("queries.jsonl"), "'q0' was already used in line 1"),
    "a, language missing": (XQ, xquad, without("zh"), "no folder 'zh'"),
    "a, language wrong": (XQ, xquad, translated, "found mostly Latin letters"),
    # (b) copies of dataset repositories
    "b, no judgements": (NQ, repository, without("qrels"), "has no configuration 'qrels'"),
    "b, no corpus": (NQ, repository, without("corpus.jsonl"), "no corpus.jsonl"),
    "b, corpus cut": (NQ, repository, cut("corpus.jsonl"), "corpus.jsonl"),
    "b, parquet cut": (NQ, parquet, cut("corpus-*.parquet"), "cannot be read"),
    "b, parquet doubled": (NQ, parquet, each_parquet_row_twice("corpus-*.parquet"), "twice"),
    "b, corpus doubled": (NQ, repository, doubled("corpus.jsonl"), "twice"),
    "b, query gone": (NQ, repository, last_line("queries.jsonl"), "judged queries are not among"),
    "b, document gone": (NQ, small_corpus, last_line("corpus.jsonl"), "documents are not in the"),
    "b, file gone": (NQ, parquet, in_two("corpus-*.parquet"), "of its files are missing"),
    "b, candidate gone": (AU, reranking, last_line("corpus.jsonl"), "'d2' of a candidate list"),
    "b, split": (
        ST,
        sts_repository,
        renamed("test.jsonl", "dev.jsonl"),
        "no split 'test'. Splits there: dev",
    ),
    "b, rows cut": (ST, sts_parquet, cut("*.parquet"), "cannot be read"),
    "b, no candidates": (AU, reranking, without("top.jsonl"), "no configuration 'top_ranked'"),
    # (d) FlagEmbedding's layout
    "d, no queries": (NQ, flagembedding, without("test_queries.jsonl"), "no test_queries.jsonl"),
    "d, corpus cut": (NQ, flagembedding, cut("corpus.jsonl"), "not JSON"),
    "d, judgements cut": (NQ, flagembedding, cut("test_qrels.jsonl"), "not JSON"),
    "d, split": (
        NQ,
        flagembedding,
        renamed("test_qrels.jsonl", "dev_qrels.jsonl"),
        "Splits with qrels there: dev",
    ),
    "d, doubled": (NQ, flagembedding, doubled("corpus.jsonl"), "was already used"),
    # (e) rows
    "e, empty folder": (ST, sts_rows, nothing, "It holds: nothing"),
    "e, cut": (ST, sts_rows, cut("test.jsonl"), "not JSON"),
    "e, split": (ST, sts_rows, renamed("test.jsonl", "dev.jsonl"), "Splits there: dev"),
    "e, no training split": (BK, classification, without("train.jsonl"), "has no train.jsonl"),
    "e, candidates cut": (AU, reranking_rows, cut("test.jsonl"), "not JSON"),
    "e, candidates' split": (
        AU,
        reranking_rows,
        renamed("test.jsonl", "dev.jsonl"),
        "Splits there: dev",
    ),
    "e, language wrong": ("LCQMC", sts_rows, in_english, "found mostly Latin letters"),
}


def refused(call: CommandLine, task: str, data: Path, output: Path, *more: str) -> str:
    subset = ["--subset", "zh"] if task == XQ else []
    done = call(
        *("run", "--model", BUILTIN, "--tasks", task, "--data-dir", data, "--offline"),
        *("--output", output, *subset, *more),
    )
    said = " ".join(done.stderr.split())
    assert done.returncode == 3, said
    assert "Traceback" not in done.stderr
    assert "Error: " in done.stderr
    assert done.stdout == ""
    files = [path.relative_to(output) for path in output.rglob("*") if path.is_file()]
    assert not [path for path in files if path.parts[0] != ".locks"], "half-written"
    return said


@pytest.mark.parametrize("case", CASES)
def test_fault(bge_eval_here: CommandLine, tmp_path: Path, case: str) -> None:
    task, make, damage, message = CASES[case]
    folder = tmp_path / "data" / task
    make(folder)
    damage(folder)
    said = refused(bge_eval_here, task, tmp_path / "data", tmp_path / "out")
    assert message in said
    assert str(tmp_path / "data") in said  # which file or folder


@pytest.mark.parametrize("fault", ["missing", "cut"])
def test_copied_cache(
    bge_eval_here: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """(c) the Hugging Face cache of another machine."""
    from bge_eval.suites.catalogue import plan

    revision = plan([NQ])[0].task.metadata.dataset["revision"]
    place = tmp_path / "cache" / "datasets--mteb--scifact" / "snapshots" / revision
    repository(place)
    without("qrels")(place) if fault == "missing" else cut("corpus.jsonl")(place)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    done = bge_eval_here("run", "--model", BUILTIN, "--tasks", NQ, "--offline", "--output", "out")
    assert done.returncode == 3
    assert str(place) in done.stderr
    assert not list((tmp_path / "cwd").rglob("*.json"))


# ── what reads without a fault and is still not the set ─────────────────────────────────────


def many(folder: Path, number: int) -> None:
    content = [{**STS[n % 3], "sentence1": f"sentence {n}"} for n in range(number)]
    write_rows(folder / "test.jsonl", content)


@pytest.mark.parametrize("number", [1000, 2 * 1379])
def test_cut_between_lines_or_pasted_twice(
    bge_eval_here: CommandLine, tmp_path: Path, number: int
) -> None:
    many(tmp_path / "data" / ST, number)
    said = refused(bge_eval_here, ST, tmp_path / "data", tmp_path / "out")
    assert f"test samples: {number:,} here, 1,379 as published" in said
    assert "--allow-other-data" in said


def test_a_sample_is_run_and_named(bge_eval_here: CommandLine, tmp_path: Path) -> None:
    sts_rows(tmp_path / "data" / ST)
    run: list[Any] = ["run", "--model", BUILTIN, "--tasks", ST, "--data-dir", tmp_path / "data"]
    done = bge_eval_here(*run, "--offline")
    assert done.returncode == 0, done.stderr
    assert "3 here, 1,379 as published" in " ".join(done.stderr.split())
    many(tmp_path / "data" / ST, 100)
    done = bge_eval_here(*run, "--offline", "--allow-other-data")
    assert done.returncode == 0, done.stderr
    assert "as published" not in done.stderr


def test_own_collection_may_be_in_any_script(bge_eval_here: CommandLine, tmp_path: Path) -> None:
    """Nobody has told of its language: mteb's eng-Latn stands there by default."""
    write_beir(
        tmp_path / "工单", [{"_id": "d", "text": "打印机坏了"}], {"q": "打印"}, [("q", "d", 1)]
    )
    done = bge_eval_here("run", "--model", BUILTIN, "--tasks", tmp_path / "工单", "--offline")
    assert done.returncode == 0, done.stderr


def test_one_bad_set_does_not_stop_the_others(bge_eval_here: CommandLine, tmp_path: Path) -> None:
    sts_rows(tmp_path / "data" / ST)
    beir(tmp_path / "data" / NQ)
    cut("corpus.jsonl")(tmp_path / "data" / NQ)
    done = bge_eval_here(
        *("run", "--model", BUILTIN, "--tasks", NQ, ST, "--data-dir", tmp_path / "data"),
        *("--offline", "--output", tmp_path / "out", "--format", "json"),
    )
    assert done.returncode == 3
    assert f"Error: {NQ} was not evaluated" in done.stderr
    assert json.loads(done.stdout)["rows"][0]["scores"][ST] is not None
    results = [path.name for path in (tmp_path / "out").rglob("*.json")]
    assert f"{NQ}.json" not in results and f"{ST}.json" in results


def test_rows_are_what_they_were(tmp_path: Path) -> None:
    """The tools of this test do to files what their names say."""
    sts_rows(tmp_path)
    doubled("test.jsonl")(tmp_path)
    assert rows(tmp_path / "test.jsonl") == STS * 2
