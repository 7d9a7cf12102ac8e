"""The project's own workflows, hooks and lock are what GitHub, pre-commit and pip can read."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_has_triggers_and_steps(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow[True], "YAML reads the key `on` as true"
    for job in workflow["jobs"].values():
        assert job["runs-on"] and job["timeout-minutes"]
        assert all("run" in step or "uses" in step for step in job["steps"])


def test_every_make_target_that_is_called_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    called: set[str] = set()
    for path in (*WORKFLOWS, ROOT / ".ci" / "run", ROOT / "CONTRIBUTING.md"):
        called |= set(re.findall(r"\bmake ([a-z-]+)(?=[\s`])", path.read_text("utf-8")))
    assert called and called <= targets | {"and"}


def test_hooks_run_from_the_environment() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    assert all(hook["language"] == "system" for hook in config["repos"][0]["hooks"])


def test_lock_holds_every_dependency_with_a_hash_and_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    locked = re.findall(r"^([a-z0-9._-]+)==\S+.*?\\\n    --hash=sha256:", text, re.MULTILINE)
    assert len(locked) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["demo"], *extras["dev"]]
    names = {re.split(r"[\[<>=; ]", line)[0].lower() for line in needed}
    assert names - {"torch", "bge-eval"} <= set(locked)


def test_the_image_has_what_the_package_is_built_from() -> None:
    """Every path that the Dockerfile copies exists, is let in, and no host is named."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = [
        path
        for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE)
        for path in line.split()[:-1]
    ]
    let_in = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert copied and set(copied) == let_in
    assert all((ROOT / path).exists() for path in copied)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    needed = wheel["build"]["targets"]["wheel"]["only-include"]
    assert all(any(f"{path}/".startswith(f"{own}/") for own in copied) for path in needed)
    assert "://" not in text and {"AS cpu", "AS cuda"} <= set(re.findall(r"AS c\w+", text))
    from bge_eval.cli.app import application

    command = re.findall(r"^CMD (.+)$", text, re.MULTILINE)
    for words in map(json.loads, command):
        group: Any = typer.main.get_command(application())
        name, chosen, rest = group.resolve_command(group.make_context("bge-eval", words), words)
        chosen.make_context(name, list(rest))
