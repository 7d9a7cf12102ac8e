"""Help pages: readable at 80 columns, nothing cut, examples that can be pasted."""

from __future__ import annotations

import shlex

import pytest

from bge_eval.cli.app import COMMANDS, GROUPS
from bge_eval.cli.options.tasks import complete_tasks
from conftest import CommandLine

PAGES = [[], *([name] for name in (*COMMANDS, *GROUPS)), ["data", "fetch"], ["data", "check"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: " ".join(page) or "root")
def test_a_page_fits_into_80_columns_and_cuts_no_word(
    bge_eval: CommandLine, monkeypatch: pytest.MonkeyPatch, page: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = bge_eval(*page, "--help")
    assert shown.returncode == 0
    prose = [line for line in shown.stdout.splitlines() if not line.lstrip().startswith("--")]
    assert max(map(len, prose)) <= 80
    assert not any(line.rstrip().endswith("...") for line in prose if "Usage" not in line)
    assert "<list[str]>" not in shown.stdout


def test_a_long_example_is_one_command_for_the_shell(
    bge_eval: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    joined = bge_eval("run", "--help").stdout.replace("\\\n", " ")
    examples = [shlex.split(line) for line in joined.splitlines() if "  bge-eval run" in line]
    assert [
        *("bge-eval", "run", "--model", "./my-model", "--tasks", "SciFact"),
        *("--data-dir", "./datasets", "--offline"),
    ] in examples


def test_options_stand_by_panel(bge_eval: CommandLine) -> None:
    shown = bge_eval("run", "--help").stdout
    panels = ["Options:", "Model:", "Prompts:", "Second stage:", "Data and results:", "Machine:"]
    places = [shown.index(f"\n{panel}\n") for panel in panels]
    assert places == sorted(places)
    assert "-m, --model TEXT" in shown and "-t, --tasks TEXT" in shown


def test_the_shell_completes_tasks_and_options(bge_eval_process: CommandLine) -> None:
    assert "beir" in complete_tasks("be")
    line = {"COMP_WORDS": "bge-eval run --tasks be", "COMP_CWORD": "3"}
    done = bge_eval_process(env={"_BGE_EVAL_COMPLETE": "complete_bash", **line})
    assert "beir" in done.stdout.split()
    line = {"COMP_WORDS": "bge-eval run --rerank", "COMP_CWORD": "2"}
    done = bge_eval_process(env={"_BGE_EVAL_COMPLETE": "complete_bash", **line})
    assert "--rerank-top-k" in done.stdout.split()


def test_a_wrong_choice_is_told_without_a_library_s_words(bge_eval: CommandLine) -> None:
    shown = bge_eval("run", "--dtype", "fp8").stderr
    assert "'fp8' is not one of 'float32'" in shown and "Value error" not in shown


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--max-length", "-3"), "-3 is too small; it must be 1 or more."),
        (("--rerank-top-k", "5000"), "5000 is too large; it must be 1000 or less."),
        (("--max-length", "long"), "'long' is not a whole number."),
        (("--max-length", "2.5"), "'2.5' is not a whole number."),
        (("--price", "nan"), "nan is not a number."),
        (("--price", "much"), "'much' is not a number."),
    ],
)
def test_a_wrong_number_is_told_with_its_value(
    bge_eval: CommandLine, words: tuple[str, str], reason: str
) -> None:
    done = bge_eval("run", *words)
    assert done.returncode == 2 and reason in done.stderr and f"'{words[0]}'" in done.stderr
