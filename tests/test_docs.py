"""The documentation: its commands are valid, its links lead somewhere, its Python runs."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from make_reference import command_names, commands_page

import bge_eval
from bge_eval.cli.app import application, application_for
from conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PAGES = [page for page in PAGES if page != DOCS / "reference" / "commands.md"]  # generated
BY_NAME = {str(page.relative_to(ROOT)): page for page in PAGES}
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def shell_lines() -> list[str]:
    lines = [line for page in PAGES for text in blocks(page, "sh") for line in text.splitlines()]
    workflow = "\n".join(text for page in PAGES for text in blocks(page, "yaml"))
    lines += [line.partition("- run: ")[2] for line in workflow.splitlines() if "- run: " in line]
    return list(dict.fromkeys(line for line in lines if line.strip()))


COMMANDS = [line for line in shell_lines() if line.startswith("bge-eval ")]


def test_documented_commands_are_found() -> None:
    assert len(COMMANDS) > 40
    others = [line for line in shell_lines() if not line.startswith("bge-eval ")]
    assert all(line.startswith(("make ", "pip install ")) for line in others), others


@pytest.mark.parametrize("line", COMMANDS)
def test_a_documented_command_is_parsed(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    if words == ["--version"]:
        return
    group: Any = typer.main.get_command(application_for(words))
    context = group.make_context("bge-eval", list(words), resilient_parsing=False)
    while True:
        name, command, rest = group.resolve_command(context, context._protected_args + context.args)
        context = command.make_context(name, rest, parent=context)
        if not hasattr(command, "commands") or not (context._protected_args + context.args):
            return
        group = command


def test_every_command_is_documented() -> None:
    group: Any = typer.main.get_command(application())
    names = {" ".join(words) for words in command_names(group)} - {"data"}
    documented = "\n".join(COMMANDS)
    assert [name for name in sorted(names) if f"bge-eval {name}" not in documented] == []


def test_the_reference_has_every_option() -> None:
    before = dict(os.environ)
    page = commands_page()
    assert dict(os.environ) == before, "a later test would print in another width"
    group: Any = typer.main.get_command(application())
    for words in command_names(group):
        command = group
        for word in words:
            command = command.commands[word]
        section = page.partition(f"## bge-eval {' '.join(words)}\n")[2].partition("\n## ")[0]
        options = [name for item in command.params for name in item.opts if name.startswith("--")]
        assert [name for name in options if name not in section] == [], words


def test_every_extra_of_users_is_documented() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {*project["optional-dependencies"]} - {"dev", "docs", "fuzz"}
    page = (DOCS / "install.md").read_text(encoding="utf-8")
    assert [name for name in sorted(extras) if f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", BY_NAME)
def test_links_lead_to_files(page: str) -> None:
    text = BY_NAME[page].read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    broken = [
        target
        for target in targets
        if "://" not in target and not (BY_NAME[page].parent / target).is_file()
    ]
    assert set(broken) <= {"reference/commands"}, broken


def test_every_page_is_in_the_table_of_contents() -> None:
    toctree = (DOCS / "index.md").read_text(encoding="utf-8")
    names = [page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")]
    assert [name for name in names if name != "index" and f"\n{name}\n" not in toctree] == []


def test_the_python_of_the_readme_and_the_docs_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for page in (ROOT / "README.md", DOCS / "python.md"):
        names: dict[str, Any] = {}
        for text in blocks(page, "python"):
            exec(compile(text, str(page), "exec"), names)
        figures = re.findall(r"# (0\.\d+),", page.read_text(encoding="utf-8"))
        assert figures, page
        results = bge_eval.evaluate("builtin:all-MiniLM-L6-v2", "demo", offline=True)
        score = results.score("BgeEvalDemo")
        assert [float(figure) for figure in figures] == pytest.approx([score], abs=1e-4)


def test_the_demo_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    app = application()
    demo = [line for line in COMMANDS if "--tasks demo" in line]
    demo += ["bge-eval table", "bge-eval table --best --costs", "bge-eval report"]
    demo += ["bge-eval tasks", "bge-eval check --baseline demo --junit check.xml"]
    demo += ["bge-eval table results/runs --format markdown"]
    assert set(demo) <= set(COMMANDS)
    results = ROOT / "results"
    (tmp_path / "results").mkdir(exist_ok=True)
    (tmp_path / "results" / "baselines").symlink_to(results / "baselines")
    for line in demo:
        app(shlex.split(line)[1:], standalone_mode=False)
    assert "0.58925" in capsys.readouterr().out
    assert (tmp_path / "report.html").is_file() and (tmp_path / "check.xml").is_file()


def test_the_tree_of_the_docs_is_the_packages_own() -> None:
    rooms = re.findall(r"^(\w+)  +\S", blocks(DOCS / "architecture.md", "text")[0], re.M)
    own = re.findall(r"^    (\w+)  +\S", str(bge_eval.__doc__).partition("list and ")[2], re.M)
    assert rooms == own


def test_the_registries_of_the_docs_exist() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    registries = re.findall(r"\| `(\w+)` in `([\w/]+\.py)` \|", page)
    assert len(registries) == 9
    for name, file in registries:
        code = (ROOT / "evaluation" / "bge_eval" / file).read_text(encoding="utf-8")
        assert re.search(rf"^(def )?{name}\b", code, re.MULTILINE), (name, file)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_pictures_are_small() -> None:
    pictures = sorted((DOCS / "pictures").iterdir())
    assert [picture.name for picture in pictures] == ["report.png", "terminal.svg"]
    assert all(picture.stat().st_size < 300_000 for picture in pictures)
