"""The house: who may import whom, what importing costs, what is public."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import bge_eval
from bge_eval.cli.app import COMMANDS, GROUPS, application

PACKAGE = Path(bge_eval.__file__).parent
FLOW = ["pytest_plugin", "cli", "gate", "models", "evaluate", "suites", "data", "encode"]
FLOW += ["lexical", "fusion", "search", "rerank", "remote", "compare", "rescore", "report"]
FLOW += [
    "export",
    "converted",
    "conversions",
    "from_torch",
    "onnx_session",
    "significance",
    "measure",
    "published",
]
FLOW += ["leaderboard", "costs", "statistics", "results"]
SHARED = {"cache", "errors", "machine", "positions", "progress", "ranking", "records"}
SHARED |= {"resources", "tables", "texts"}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imports(path: Path) -> set[str]:
    """The rooms that a module imports when it runs (not for types alone)."""
    rooms: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typed = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in typed:
            parts = (node.module or "").split(".")
            if parts[0] == "bge_eval" and len(parts) > 1:
                rooms.add(parts[1])
    return rooms


@pytest.mark.parametrize(
    "path",
    sorted(PACKAGE.rglob("*.py")),
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_data_flow_one_way(path: Path) -> None:
    room = _room(path)
    if room in ("__init__", "__main__"):
        return
    for other in _imports(path) - {room}:
        if room in SHARED:
            assert other in SHARED, f"{room} is shared by all and imports {other}"
        elif other not in SHARED:
            assert FLOW.index(other) > FLOW.index(room), f"{room} imports {other} to its left"


def test_every_room_is_known() -> None:
    rooms = {_room(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert rooms == {*FLOW, *SHARED}


def test_importing_needs_neither_torch_nor_mteb() -> None:
    code = (
        "import sys, json, bge_eval, bge_eval.cli.app;"
        "print(json.dumps([m for m in ('torch', 'mteb', 'numpy', 'pandas') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_public_names() -> None:
    assert bge_eval.__all__ == [
        "BgeEvalError",
        "DamagedError",
        "MissingError",
        "NotReadyError",
        "UsageError",
        "__version__",
        "load_model",
    ]
    assert all(hasattr(bge_eval, name) for name in bge_eval.__all__)


def test_commands_that_are_not_read_say_the_same() -> None:
    def lines(word: str | None) -> dict[str, str]:
        group: Any = typer.main.get_command(application(word))
        return {
            name: " ".join(str(command.help).split("\n\n")[0].split())
            for name, command in group.commands.items()
        }

    assert lines("") == lines(None) == COMMANDS | GROUPS
    code = (
        "import sys; from bge_eval.cli.app import application; application('')\n"
        "print([m for m in sys.modules if m.startswith('bge_eval.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "bge_eval.cli.run" not in done.stdout and "bge_eval.gate" not in done.stdout
