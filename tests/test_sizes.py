"""Functions and modules stay small enough to be read whole."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import bge_eval

PACKAGE = Path(bge_eval.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

LONGEST_FUNCTION = 60
MOST_PARAMETERS = 8
LONGEST_MODULE = 450
MOST_TOP_MODULES = 4

LONG_FUNCTIONS: set[str] = set()
"""``folder/module.py:function`` of tables and of functions still to be divided."""

MANY_PARAMETERS = {
    "api/evaluating.py:evaluate",  # public: named options, which editors complete
}
"""``folder/module.py:function`` of public functions."""

LONG_MODULES: set[str] = set()
"""Modules still to be divided."""


def _functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield the name and the syntax tree of every function and method of the package."""
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}:{node.name}", node


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return len([each for each in every if each.arg not in ("self", "cls")])


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines, its docstring aside."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def _refuse(found: set[str], exceptions: set[str], limit: str) -> None:
    assert not found - exceptions, f"{limit}: {sorted(found - exceptions)}"


def test_no_function_is_long() -> None:
    found = {name for name, function in _functions() if _lines(function) > LONGEST_FUNCTION}
    _refuse(found, LONG_FUNCTIONS, f"longer than {LONGEST_FUNCTION} lines")


def test_no_function_takes_many_parameters() -> None:
    found = {name for name, function in _functions() if _parameters(function) > MOST_PARAMETERS}
    _refuse(found, MANY_PARAMETERS, f"more than {MOST_PARAMETERS} parameters")


def test_no_module_is_long() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST_MODULE
    }
    _refuse(found, LONG_MODULES, f"longer than {LONGEST_MODULE} lines")


def test_few_modules_stand_at_the_top() -> None:
    top = sorted(path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__"))
    assert len(top) <= MOST_TOP_MODULES, top
