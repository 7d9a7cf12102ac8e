"""Defaults of options: the file, the environment, what comes first, what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import typer
from make_reference import command_names, commands_page

from bge_eval.cli.app import application
from bge_eval.cli.defaults import option_name, variable
from conftest import CommandLine


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder in which the command runs."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    return folder


def sources(text: str) -> dict[str, tuple[str, str]]:
    """Return option → (value, where it comes from) of ``--show-config``."""
    rows = [line.strip("│ ").split("│") for line in text.splitlines() if line.startswith("│")]
    return {row[0].strip(): (row[1].strip(), row[2].strip()) for row in rows if row[0].strip()}


def test_the_command_line_comes_before_the_environment_and_the_file(
    project: Path, bge_eval: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "bge-eval.toml").write_text(
        "[run]\nmax-length = 64\ndata-dir = ['a', 'b']\noffline = true\nformat = 'csv'\n"
        "normalize = false\ntruncate-dim = 3\n[table]\nbest = true\n"
    )
    monkeypatch.setenv("BGE_EVAL_RUN_TRUNCATE_DIM", "8")
    monkeypatch.setenv("BGE_EVAL_RUN_MAX_LENGTH", "32")
    monkeypatch.setenv("COLUMNS", "160")
    shown = bge_eval("run", "--max-length", "16", "--show-config")
    assert shown.returncode == 0, shown.stderr
    listed = sources(shown.stdout)
    assert listed["max-length"] == ("16", "command line")
    assert listed["truncate-dim"] == ("8", "BGE_EVAL_RUN_TRUNCATE_DIM")
    assert listed["data-dir"][0] == "a, b" and listed["data-dir"][1].endswith("[run]")
    assert [listed[name][0] for name in ("offline", "format", "normalize")] == [
        *("True", "csv", "False")
    ]
    assert listed["output"] == ("results/runs", "default")


def test_a_default_is_used(project: Path, bge_eval: CommandLine) -> None:
    (project / "pyproject.toml").write_text(
        "[tool.bge-eval.run]\nmodel = 'bm25'\ntasks = ['demo']\noffline = true\noutput = 'here'\n"
    )
    inner = project / "inner"
    inner.mkdir()
    done = bge_eval("run", "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert "bm25" in done.stdout and (project / "here" / "results").is_dir()
    over = bge_eval("run", "--model", "builtin:all-MiniLM-L6-v2", "--dry-run")
    assert over.returncode == 0 and "MiniLM" in over.stderr and "BM25" not in over.stderr


def test_a_default_of_an_experiment_is_one_of_the_command_line(
    project: Path, bge_eval: CommandLine
) -> None:
    (project / "bge-eval.toml").write_text("[run]\noutput = 'there'\noffline = true\n")
    (project / "x.toml").write_text("tasks = ['demo']\nmodels = ['bm25']\noutput = 'here'\n")
    done = bge_eval("run", "x.toml")
    assert done.returncode == 2 and "'output' in x.toml" in done.stderr


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("[run]\nmaxlength = 3", 2, "'maxlength' is no option of bge-eval run. Did you mean max"),
        ("[rum]\nmax-length = 3", 2, "'rum' is no command of bge-eval"),
        ("offline = true", 2, "'offline' is no command of bge-eval"),
        ("[run]\noffline = 'yes'", 2, "'offline' takes true or false, not 'yes'"),
        ("[run]\nmax-length = [1, 2]", 2, "'max-length' takes a text or a number, not [1, 2]"),
        ("[run]\nmax-length = true", 2, "'max-length' takes a text or a number, not True"),
        ("[run]\ndata-dir = [true]", 2, "a text or a number, or a list of them"),
        ("[run]\nmax-length = 0", 2, "--max-length"),
        ("[run", 3, "is no readable TOML file"),
    ],
)
def test_a_wrong_file_is_refused_by_name(
    project: Path, bge_eval: CommandLine, text: str, code: int, expected: str
) -> None:
    (project / "bge-eval.toml").write_text(text)
    done = bge_eval("run", "--show-config")
    assert done.returncode == code, done.stderr
    assert expected in " ".join(done.stderr.split())


def test_two_files_in_one_folder_are_refused(project: Path, bge_eval: CommandLine) -> None:
    (project / "bge-eval.toml").write_text("[run]\noffline = true")
    (project / "pyproject.toml").write_text("[tool.bge-eval.run]\noffline = true")
    done = bge_eval("run", "--show-config")
    assert done.returncode == 2 and "two files of defaults" in done.stderr
    (project / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100")
    assert bge_eval("run", "--show-config").returncode == 0


def test_a_variable_of_no_option_is_refused(
    bge_eval: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGE_EVAL_RUN_MAXLENGTH", "3")
    done = bge_eval("run", "--show-config")
    assert done.returncode == 2
    assert "has BGE_EVAL_RUN_MAXLENGTH" in done.stderr
    assert "Did you mean BGE_EVAL_RUN_MAX_LENGTH" in done.stderr


def test_the_variable_of_every_option_is_documented_and_none_has_another_meaning() -> None:
    page = commands_page()
    group: Any = typer.main.get_command(application())
    names = []
    for words in command_names(group):
        command = group
        for word in words:
            command = command.commands[word]
        if hasattr(command, "commands"):
            continue
        options = [each for each in command.params if each.param_type_name == "option"]
        names += [variable(words, option_name(option)) for option in options]
    assert len(names) == len(set(names)) > 150
    assert [name for name in names if f"`{name}`" not in page] == []
    others = {"BGE_EVAL_CACHE", "BGE_EVAL_API_KEY", "BGE_EVAL_RERANKER_API_KEY", "BGE_EVAL_DEBUG"}
    assert not others & set(names) and not any(name in os.environ for name in names)
