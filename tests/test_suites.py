"""Suites are mteb's benchmarks, and names lead to fresh tasks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import mteb
import pytest

from bge_eval.data.finding import find_source
from bge_eval.data.retrieval_folder import RetrievalSource
from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.resources import tasks_folder
from bge_eval.suites.catalogue import _SPLITS_FROM, plan
from bge_eval.suites.suite_files import read_suite, suite_members, suites, task_names


@pytest.mark.parametrize(
    ("suite", "benchmark", "count"),
    [
        ("beir", "BEIR", 15),
        ("mteb-en", "MTEB(eng, v1)", 56),
        ("mteb-en-v2", "MTEB(eng, v2)", 41),
        ("c-mteb", "MTEB(cmn, v1)", 31),
        ("nanobeir", "NanoBEIR", 13),
        ("bright", "BRIGHT(v1.1)", 20),
        ("coir", "CoIR", 10),
    ],
)
def test_suites_are_mtebs(suite: str, benchmark: str, count: int) -> None:
    theirs = mteb.get_benchmark(benchmark).tasks
    ours = plan([suite])
    assert [task.name for task in ours] == [task.metadata.name for task in theirs]
    assert task_names(suites()[suite]) == [task.name for task in ours]
    assert len(ours) == count
    for mine, reference in zip(ours, theirs, strict=True):
        assert list(mine.task.eval_splits) == list(reference.eval_splits)
        assert list(mine.task.hf_subsets) == list(reference.hf_subsets)
        assert mine.task is not reference or mine.parts


def test_rteb_is_the_public_part() -> None:
    theirs = mteb.get_benchmark("RTEB(beta)").tasks
    public = [task.metadata.name for task in theirs if task.metadata.is_public]
    assert task_names(suites()["rteb"]) == public
    assert len(public) < len(theirs)


def test_suites_without_a_benchmark() -> None:
    for name in ("msmarco", "miracl", "mldr", "mkqa"):
        of_mteb = list(suites()[name].tasks)
        assert [task.name for task in plan([name])][: len(of_mteb)] == of_mteb
    assert plan(["msmarco"])[0].task.eval_splits == ["dev"]
    licensed = ["BioASQ", "Signal1M", "TRECNEWS", "Robust04"]
    assert task_names(suites()["beir-18"]) == [*task_names(suites()["beir"]), *licensed]


def test_licensed_set_comes_from_the_users_copy(small_scifact: Path) -> None:
    (small_scifact / "scifact").rename(small_scifact / "bioasq")
    planned = next(task for task in plan(["beir-18"]) if task.name == "BioASQ")
    source = find_source(planned.task, [small_scifact], planned.folder_names, offline=True)
    assert source.origin == str(small_scifact / "bioasq")


def test_languages() -> None:
    planned = plan(["XQuADRetrieval", "SciFact", "STSB"], languages=["zh"])
    assert [task.name for task in planned] == ["XQuADRetrieval", "STSB"]
    assert planned[0].task.hf_subsets == ["zh"]
    assert [task.name for task in plan(["SciFact", "STSB"], languages=["eng"])] == ["SciFact"]
    with pytest.raises(UsageError, match="None of the tasks is in tlh"):
        plan(["SciFact"], languages=["tlh"])
    german = plan(["XQuADRetrieval", "GermanQuAD-Retrieval", "SciFact"], languages=["de"])
    assert [task.name for task in german] == ["XQuADRetrieval", "GermanQuAD-Retrieval"]
    assert plan(["STSB", "SciFact"], languages=["zho-Hans"])[0].name == "STSB"


def test_every_folder_name_belongs_to_a_task() -> None:
    planned = plan(["beir"])
    names = {part.name for task in planned for part in (task.parts or (task,))}
    assert set(suites()["beir"].folders) == names
    assert len(names) == 14 + 12


def test_tasks_are_fresh() -> None:
    assert plan(["SciFact"])[0].task is not plan(["SciFact"])[0].task


def test_a_folder_of_a_tasks_name_is_not_the_task(
    small_scifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called where the data lie, the task is still mteb's, with its own rules."""
    (small_scifact / "scifact").rename(small_scifact / "SciFact")
    monkeypatch.chdir(small_scifact)
    assert plan(["SciFact"])[0].shipped is None
    with pytest.raises(UsageError, match="Give this collection another name"):
        plan(["./SciFact"])
    (small_scifact / "SciFact").rename(small_scifact / "tickets")
    assert plan(["tickets"])[0].shipped == Path("tickets")


def test_mix_without_repetition() -> None:
    assert [t.name for t in plan(["SciFact", "demo", "SciFact"])] == ["SciFact", "BgeEvalDemo"]


@pytest.mark.parametrize("name", ["scifat", "SciFcat", "bier"])
def test_wrong_name(name: str) -> None:
    with pytest.raises(UsageError, match="Did you mean"):
        plan([name])


def test_wrong_subset() -> None:
    with pytest.raises(UsageError, match="none of the subsets xx; it has ar"):
        plan(["XQuADRetrieval"], ["xx"])


def test_unknown_key_in_a_suite(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('description = "x"\nbenchmrak = "BEIR"\n')
    with pytest.raises(DamagedError, match="benchmrak"):
        read_suite(path)


def test_demo_collection() -> None:
    folder = tasks_folder() / "demo"

    def lines(name: str) -> list[str]:
        return (folder / name).read_text(encoding="utf-8").splitlines()

    corpus = [json.loads(line) for line in lines("corpus.jsonl")]
    queries = [json.loads(line) for line in lines("queries.jsonl")]
    qrels = [line.split("\t") for line in lines("qrels/test.tsv")][1:]
    assert len(corpus) >= 150 and len(queries) >= 50
    assert Counter(record["_id"][:2] for record in corpus) == {"en": 129, "zh": 70}
    assert {int(row[2]) for row in qrels} == {0, 1, 2}
    answered = {row[0] for row in qrels if int(row[2]) == 2}
    assert answered == {record["_id"] for record in queries}
    assert task_names(suites()["demo"]) == ["BgeEvalDemo"]


@pytest.mark.parametrize("name", ["SciFact", "scifact", "SCIFACT"])
def test_folder_is_found_by_any_name(small_scifact: Path, name: str) -> None:
    (small_scifact / "scifact").rename(small_scifact / name)
    planned = plan(["SciFact"])[0]
    source = find_source(planned.task, [small_scifact], planned.folder_names)
    assert isinstance(source, RetrievalSource)


def test_folder_itself_may_be_given(small_scifact: Path) -> None:
    planned = plan(["SciFact"])[0]
    source = find_source(planned.task, [small_scifact / "scifact"], planned.folder_names)
    assert isinstance(source, RetrievalSource)


def test_beirs_nested_forums(small_scifact: Path) -> None:
    (small_scifact / "cqadupstack").mkdir()
    (small_scifact / "scifact").rename(small_scifact / "cqadupstack" / "gis")
    part = next(p for p in plan(["beir"])[7].parts if p.name == "CQADupstackGisRetrieval")
    source = find_source(part.task, [small_scifact], part.folder_names)
    assert source.origin.endswith("cqadupstack/gis")


def test_first_folder_wins(small_scifact: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    planned = plan(["SciFact"])[0]
    source = find_source(planned.task, [tmp_path / "other", small_scifact], planned.folder_names)
    assert source.origin == str(small_scifact / "scifact")


def test_missing_subset_names_those_there(small_scifact: Path) -> None:
    place = small_scifact / "XQuADRetrieval"
    place.mkdir()
    (small_scifact / "scifact").rename(place / "zh")
    planned = plan(["XQuADRetrieval"])[0]
    with pytest.raises(MissingError, match=r"there are: zh.*--subset zh"):
        find_source(planned.task, [small_scifact], ())


def test_cqadupstack_is_averaged_over_its_forums(small_scifact: Path, tmp_path: Path) -> None:
    import shutil

    from bge_eval.evaluation.evaluate import evaluate
    from bge_eval.evaluation.options import Options
    from bge_eval.models.transformer import EncoderModel
    from conftest import BUILTIN

    planned = next(task for task in plan(["beir"]) if task.name == "CQADupstackRetrieval")
    data = tmp_path / "beir"
    for part in planned.parts:
        target = data / part.folder_names[0]
        shutil.copytree(small_scifact / "scifact", target)
    lines = (data / "cqadupstack/gis/qrels/test.tsv").read_text().replace("q1\td1", "q1\td5")
    (data / "cqadupstack/gis/qrels/test.tsv").write_text(lines)
    options = Options(tmp_path / "out", (data,), offline=True)
    model = EncoderModel(BUILTIN)
    report = evaluate(model, [planned], options)
    path = report.done["CQADupstackRetrieval"][0]
    parts = [path.with_name(f"{part.name}.json") for part in planned.parts]
    scores = [json.loads(p.read_text())["scores"]["test"][0]["main_score"] for p in parts]
    assert len(scores) == 12 and len(set(scores)) == 2
    whole = json.loads(path.read_text())["scores"]["test"][0]["main_score"]
    assert whole == pytest.approx(sum(scores) / 12, abs=1e-5)
    assert evaluate(model, [planned], options).reused == ["CQADupstackRetrieval"]


@pytest.mark.slow
def test_a_task_named_alone_is_that_of_its_first_suite() -> None:
    """Its splits and subsets are remembered without mteb's benchmarks; they are the benchmark's."""
    compared = set()
    for suite in sorted(suites().values(), key=lambda suite: suite.name not in _SPLITS_FROM):
        for task in suite_members(suite) if suite.benchmark else []:
            name = task.metadata.name
            if name not in compared and name.lower() not in suites():
                compared.add(name)
                [alone] = plan([name])
                if not alone.parts:
                    assert type(alone.task) is type(task), name
                    assert list(alone.task.eval_splits) == list(task.eval_splits), name
                    assert list(alone.task.hf_subsets) == list(task.hf_subsets), name
    assert len(compared) > 100
