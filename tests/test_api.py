"""The Python API, on the embedded model and the embedded collection."""

from __future__ import annotations

import subprocess
import sys
import typing
from dataclasses import fields
from pathlib import Path

import pytest

import bge_eval
from bge_eval.encode.protocol import ProtocolName
from bge_eval.encode.settings import Backend, Dtype, Overrides, Pooling, Similarity
from bge_eval.models.kinds import Loader, ModelOptions
from bge_eval.remote.apis import Api
from conftest import BUILTIN

DEMO = "BgeEvalDemo"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> bge_eval.Results:
    output = tmp_path_factory.mktemp("api")
    return bge_eval.evaluate(BUILTIN, "demo", output=output, offline=True, backend="torch")


def test_scores_are_those_that_the_command_line_prints(demo: bge_eval.Results) -> None:
    command = [sys.executable, "-m", "bge_eval", "table", str(demo.folder), "--format", "csv"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{demo.score(DEMO):.6f}"[:7] in printed
    assert demo.scores() == {DEMO: demo.score(DEMO)}
    assert demo.failures == {}


def test_measures_by_name(demo: bge_eval.Results) -> None:
    assert demo.score(DEMO, "nDCG@10") == demo.score(DEMO)
    assert 0 < demo.score(DEMO, "RR@10") <= 1
    with pytest.raises(bge_eval.UsageError, match="nDGC"):
        demo.score(DEMO, "nDGC@10")


def test_a_task_that_was_not_evaluated(demo: bge_eval.Results) -> None:
    with pytest.raises(bge_eval.UsageError, match=f"SciFact was not evaluated.*{DEMO}"):
        demo.score("SciFact")


def test_to_pandas(demo: bge_eval.Results) -> None:
    frame = demo.to_pandas()
    assert list(frame[DEMO]) == [demo.score(DEMO)]
    assert "all-MiniLM-L6-v2" in frame["model"][0]


def test_a_second_call_reads_the_saved_result(demo: bge_eval.Results) -> None:
    model = bge_eval.load_model(BUILTIN, offline=True, backend="torch")
    again = bge_eval.evaluate(model, ["demo"], output=demo.folder, offline=True)
    assert again.reused == (DEMO,)
    assert again.scores() == demo.scores()


def test_files_hold_mteb_results(demo: bge_eval.Results) -> None:
    from mteb.results import TaskResult

    (file,) = demo.files[DEMO]
    assert file.is_relative_to(demo.folder)
    assert TaskResult.from_disk(file).get_score() == demo.score(DEMO)


def test_a_failed_task_raises_its_own_error_when_it_is_read(
    tmp_path: Path, small_scifact: Path
) -> None:
    # bm25 has no vectors, so it cannot do STS; SciFact is evaluated all the same.
    pytest.importorskip("bm25s")
    sts = small_scifact / "STSBenchmark"
    sts.mkdir()
    rows = '{"sentence1": "a cat", "sentence2": "a dog", "score": 2.5}\n'
    (sts / "test.jsonl").write_text(rows * 40, encoding="utf-8")
    results = bge_eval.evaluate(
        "bm25",
        ["SciFact", "STSBenchmark"],
        data_dir=small_scifact,
        output=tmp_path / "runs",
        offline=True,
        allow_other_data=True,
    )
    assert list(results.files) == ["SciFact"]
    assert list(results.failures) == ["STSBenchmark"]
    with pytest.raises(bge_eval.UsageError, match="needs an encoder"):
        results.score("STSBenchmark")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"poling": "cls"}, "Did you mean pooling"),
        ({"pooling": "median"}, "it can be cls, mean, last"),
        ({"backend": "jax"}, "it can be auto, torch"),
        ({"m3_weights": "1"}, "m3-mode"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(bge_eval.UsageError, match=message):
        bge_eval.load_model(BUILTIN, offline=True, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("http://localhost:9", {"api_concurrency": 0}, "--api-concurrency is 0; expected a whole"),
        ("http://localhost:9", {"api_timeout": -1.0}, "--api-timeout is -1.0; expected a number"),
        (BUILTIN, {"api_concurrency": 4}, "api_concurrency: for .*, not builtin"),
        ("bm52", {}, "Did you mean bm25.* run:PATH of a saved run, a server's address"),
    ],
)
def test_wrong_names_and_limits_of_requests_are_refused(
    name: str, settings: dict[str, float], message: str, tmp_path: Path
) -> None:
    with pytest.raises(bge_eval.UsageError, match=message):
        bge_eval.evaluate(name, "demo", output=tmp_path, **settings)  # type: ignore[arg-type]


def test_settings_of_a_loaded_model_are_refused(tmp_path: Path) -> None:
    model = bge_eval.load_model(BUILTIN, offline=True)
    with pytest.raises(bge_eval.UsageError, match="already loaded"):
        bge_eval.evaluate(model, "demo", output=tmp_path, max_length=64)


def test_offline_is_refused_once_the_hub_client_may_connect() -> None:
    code = (
        "import huggingface_hub.constants, bge_eval\n"
        "try: bge_eval.load_model('bm25', offline=True)\n"
        "except bge_eval.UsageError as error: print(error)"
    )
    environment = {"PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert "HF_HUB_OFFLINE=1" in done.stdout


def test_every_setting_has_its_name_and_choices() -> None:
    hints = typing.get_type_hints(
        bge_eval.ModelSettings, vars(sys.modules["bge_eval.api.settings"]) | vars(typing)
    )
    of_models = {item.name for item in fields(Overrides)} | {
        item.name for item in fields(ModelOptions)
    }
    of_models -= {"overrides", "offline", "limits", "shared", "honoured"}
    assert set(hints) == of_models | {
        "api_concurrency",
        "api_timeout",
        "index_params",
        "vectors",
        "rescore_top",
        "index_depth",
    }
    kinds = {"pooling": Pooling, "similarity": Similarity, "dtype": Dtype, "backend": Backend}
    kinds |= {"protocol": ProtocolName, "loader": Loader, "api": Api}
    for name, kind in kinds.items():
        choices = [hints[name], *typing.get_args(hints[name])]
        literal = next(one for one in choices if typing.get_origin(one) is typing.Literal)
        assert list(typing.get_args(literal)) == [str(member) for member in kind], name
