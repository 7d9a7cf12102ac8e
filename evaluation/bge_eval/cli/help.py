"""The help page of a command: plain text of the terminal's width, options by panel.

typer's own page puts names, types and texts into columns of a box, which leaves 28 columns of an
80-column terminal for the text. Here an option's text has all of the width but its names'.
"""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from bge_eval.cli.defaults import (
    find_defaults,
    refuse_unknown_variables,
    set_variables,
    words_of,
)
from bge_eval.cli.formats.printable import print_error
from bge_eval.errors import BgeEvalError

_EXAMPLE = "bge-eval "
_NAMES = 24
"""Widest column of names; an option with longer names has its text on the next line."""


_TYPES = {
    "<str>": "TEXT",
    "<list[str]>": "TEXT",
    "<path>": "PATH",
    "<list[Path]>": "PATH",
    "<int>": "N",
    "<int range>": "N",
    "<float>": "X",
    "<float range>": "X",
}
"""typer's name of a type → the word for a value on the page."""


_NOISE = "Value error, "
"""What pydantic, which typer checks values with, puts before its messages."""


class HelpfulCommand(TyperCommand):
    """A command whose help has its options by panel and its examples as lines to copy.

    Its options take their defaults from the environment and from the project's file.
    """

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """Return the context with the defaults of this command."""
        words = words_of(info_name, parent)
        options = [each for each in self.params if each.param_type_name == "option"]
        try:
            set_variables(options, words)
            if not extra.get("resilient_parsing"):
                refuse_unknown_variables(words, options)
                defaults = find_defaults(Path.cwd())
                extra["default_map"] = defaults.values(words, options)
        except BgeEvalError as error:
            print_error(str(error))
            raise typer.Exit(error.exit_code) from None
        try:
            return super().make_context(info_name, args, parent, **extra)
        except typer.BadParameter as error:
            error.message = _reason(error)
            raise

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write the docstring: prose is wrapped, a long example continues after a backslash."""
        _write_text(self.help, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options: those of no panel first, then the panels in their order."""
        panels: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            entry = parameter.get_help_record(ctx)
            if entry is None:
                continue
            panel = getattr(parameter, "rich_help_panel", None)
            if parameter.param_type_name == "argument":
                panel = panel or "Arguments"
            names, text = entry
            for name, word in _TYPES.items():
                names = names.replace(name, word)
            panels.setdefault(panel or "Options", []).append((names, text))
        for panel, entries in panels.items():
            if entries:
                with formatter.section(panel):
                    formatter.write_dl(entries, col_max=_NAMES)


def _reason(error: typer.BadParameter) -> str:
    """Return why a value is wrong: the value, and what was expected."""
    told = getattr(error.__cause__, "errors", None)  # pydantic's ValidationError
    first = told()[0] if told else {}
    limits, value = first.get("ctx") or {}, first.get("input")
    if str(value).casefold() == "nan":  # no limit holds for it
        return "nan is not a number."
    match first.get("type"):
        case "greater_than_equal":
            return f"{value} is too small; it must be {limits['ge']:g} or more."
        case "less_than_equal":
            return f"{value} is too large; it must be {limits['le']:g} or less."
        case "int_parsing" | "int_from_float" | "int_type":
            return f"'{value}' is not a whole number."
        case "float_parsing" | "float_type":
            return f"'{value}' is not a number."
        case "finite_number":
            return f"{value} is not a finite number."
    return error.message.removeprefix(_NOISE)


class HelpfulGroup(TyperGroup):
    """A group of commands whose help has the whole first line of every command."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write the docstring as `HelpfulCommand` does."""
        _write_text(self.help, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write every command with its line, wrapped and not cut."""
        entries = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                lines = inspect.cleandoc(command.help or "").split("\n\n")[0]
                entries.append((name, " ".join(lines.split())))
        if entries:
            with formatter.section("Commands"):
                formatter.write_dl(entries, col_max=_NAMES)


def _write_text(text: str | None, formatter: Any) -> None:
    """Write a docstring, whose examples are lines that start with the program's name."""
    width = formatter.width - 4
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        lines = [" ".join(line.split()) for line in paragraph.splitlines()]
        formatter.write("\n")
        if not any(map(_is_example, lines)):
            lines = [" ".join(lines)]
        for line in lines:
            if _is_example(line):
                formatter.write(f"{_command_line(line, width)}\n")
            else:
                wrapped = textwrap.wrap(line, width, initial_indent="  ", subsequent_indent="  ")
                formatter.write("\n".join(wrapped) + "\n")


def _is_example(line: str) -> bool:
    return line.strip().startswith(_EXAMPLE)


def _command_line(text: str, width: int) -> str:
    """Return a command that the shell reads as one line, broken where it is too wide."""
    lines = textwrap.wrap(
        text,
        width - 2,
        initial_indent="    ",
        subsequent_indent="        ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return " \\\n".join(lines)
