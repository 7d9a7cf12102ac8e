"""A command whose results are saved loads neither mteb nor torch, and never believes old ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bge_eval.cli.app import application
from bge_eval.suites import remembered

HEAVY = ("mteb", "torch", "transformers", "datasets", "openvino")
CODE = (
    "import sys\n"
    "from bge_eval.cli.app import main\n"
    "try:\n"
    "    main()\n"
    "except SystemExit as done:\n"
    "    code = done.code\n"
    f"print('LOADED', [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
    "sys.exit(code)"
)


def call(*arguments: str | Path, cwd: Path | None = None) -> tuple[str, str, str]:
    """Run a command in a process; return stdout, stderr, and the heavy modules that it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text, _, loaded = done.stderr.rpartition("LOADED ")
    return done.stdout, text, loaded.strip()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows on one task, written by 0.1.0; the second is a copy under another name."""
    root = tmp_path_factory.mktemp("saved") / "runs"
    shutil.copytree(Path(__file__).parent / "saved_by_0_1_0", root)
    [folder] = root.glob("results/*/*")
    other = folder.parent.with_name("bge-eval__other") / folder.name
    shutil.copytree(folder, other)
    meta = json.loads((other / "model_meta.json").read_text())
    (other / "model_meta.json").write_text(json.dumps(meta | {"name": "bge-eval/other"}))
    return root


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("table", "{root}"),
        ("compare", "bm25", "other", "--runs", "{root}"),
        ("report", "{root}", "--no-published", "--output", "{root}/../page.html"),
        ("store", "--store", "{root}"),
        ("run", "--help"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_reads_results_loads_no_model_library(
    results: Path, arguments: tuple[str, ...]
) -> None:
    _, _, loaded = call(*(text.format(root=results) for text in arguments))
    assert loaded == "[]"


@pytest.mark.slow
def test_published_rows_are_shown_without_mteb_once_it_was_asked(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    commands = [
        ("table", str(results), "--published", "--zero-shot", "--types"),
        ("table", str(results), "--tasks", "beir", "--published", "--format", "csv"),
        ("table", "--tasks", "SciFact", "--published", "--format", "json"),
        ("report", str(results), "--output", "page.html"),
    ]
    first = [CliRunner().invoke(application(), command) for command in commands]
    assert [done.exit_code for done in first] == [0] * len(commands), first[0].output
    for command, before in zip(commands[1:], first[1:], strict=True):
        text, _, loaded = call(*command, cwd=tmp_path)
        assert loaded == "[]" and text == before.stdout
    # A damaged answer, and those of another version of mteb, are asked for again.
    for path in (tmp_path / "cache").rglob("*.json"):
        path.write_text("{")
    again = CliRunner().invoke(application(), commands[2])
    assert again.stdout == first[2].stdout
    assert (
        "not known here"
        in CliRunner()
        .invoke(
            application(),
            ("table", str(results), "--tasks", "own", "--lang", "de"),
            env={"COLUMNS": "200"},
        )
        .output
    )
    monkeypatch.setattr(remembered, "_library", lambda: "3.0.0-0")
    assert remembered.remembered("columns", lambda: [1, 2]) == [1, 2]
    assert remembered.remembered("columns", lambda: pytest.fail("asked twice")) == [1, 2]


@pytest.mark.slow
def test_a_repeated_run_loads_nothing_and_sees_every_change(
    tmp_path: Path, small_scifact: Path, tiny_bge: Path
) -> None:
    model, output = tmp_path / "model", tmp_path / "out"
    shutil.copytree(tiny_bge, model)
    command: tuple[str | Path, ...] = (
        "run",
        "--model",
        model,
        "--tasks",
        "SciFact",
        "--data-dir",
        small_scifact,
    )
    command = (*command, "--data-dir", small_scifact, "--output", output, "--allow-other-data")
    command = (*command, "--store", tmp_path / "store")

    def again() -> tuple[str, str, bool]:
        out, err, loaded = call(*command, cwd=tmp_path)
        return out, err, "mteb" in loaded

    first, _, whole = again()
    assert whole
    second, notes, whole = again()
    assert second == first and not whole
    assert "SciFact: already done with this identity" in notes
    # What results depend on, or the results themselves: looked at again in full.
    queries = small_scifact / "scifact" / "queries.jsonl"
    lines = queries.read_text(encoding="utf-8")
    queries.write_text(lines.replace("memory and sleep", "the blood"), encoding="utf-8")
    changed, _, whole = again()
    assert whole and changed != first
    assert not again()[2]
    [result] = output.glob("results/*/*/SciFact.json")
    os.utime(result)
    assert again()[2]
    assert not again()[2]
    config = model / "1_Pooling" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert again()[2]
