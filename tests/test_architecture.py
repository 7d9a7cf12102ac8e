"""The house: who may import whom, what importing costs, what is public."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import bge_eval
from bge_eval.cli.app import COMMANDS, GROUPS, application

PACKAGE = Path(bge_eval.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
FRONT_DOOR = {"__init__", "__main__"}
"""They offer what the rooms hold, and so may import any of them."""


def _floors() -> list[str]:
    """Read the rooms, top floor first, from the package's own docstring."""
    drawn = str(bge_eval.__doc__).partition("::\n\n    cli ")[2]
    return ["cli", *re.findall(r"^    (\w+)  ", drawn, re.MULTILINE)]


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and room of every import of the package, for types alone or not."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "a relative import"
        elif isinstance(node, ast.ImportFrom) and node.module == "bge_eval":
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
            yield from ((node.lineno, room) for room in _rooms_of(names))
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, room) for room in _rooms_of([n.name for n in node.names]))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)]
            yield from ((node.lineno, room) for room in _rooms_of(names))


def _rooms_of(modules: list[str]) -> list[str]:
    return [name.split(".")[1] for name in modules if name.startswith("bge_eval.")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_floors_below(path: Path) -> None:
    floors = _floors()
    room = _room(path)
    if room in FRONT_DOOR:
        return
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {room} (floor {len(floors) - floors.index(room)})"
        f" imports {other}, which is "
        + (
            f"above it (floor {len(floors) - floors.index(other)})"
            if other in floors
            else "no room of the package's docstring"
        )
        for line, other in _imported(path)
        if other not in {room, "__version__"}
        and (other not in floors or floors.index(other) <= floors.index(room))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_drawing_names_every_room() -> None:
    assert sorted(_floors()) == sorted({_room(path) for path in MODULES} - FRONT_DOOR)


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
        "ClusterOptions",
        "DamagedError",
        "Lite",
        "MissingError",
        "ModelSettings",
        "NotReadyError",
        "Results",
        "UsageError",
        "__version__",
        "evaluate",
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
