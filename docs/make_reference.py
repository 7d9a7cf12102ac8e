"""Write the reference of the command line from the commands' own help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HEAD = """# Commands

Generated from `bge-eval … --help`.
"""


def write_commands(target: Path) -> None:
    """Write the page, unless it is up to date."""
    text = commands_page()
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        target.write_text(text, encoding="utf-8")


def commands_page() -> str:
    """Return the help of every command as one Markdown page."""
    import typer
    from typer.testing import CliRunner

    from bge_eval.cli.app import application

    app = application()
    parts = [HEAD]
    for words in command_names(typer.main.get_command(app)):
        result = CliRunner(env={"COLUMNS": "100"}).invoke(
            app, [*words, "--help"], prog_name="bge-eval"
        )
        lines = [line.rstrip() for line in result.output.strip().splitlines()]
        parts.append(f"## bge-eval {' '.join(words)}\n\n```text\n" + "\n".join(lines) + "\n```\n")
        if names := variables(typer.main.get_command(app), words):
            parts.append(f"In the environment: {', '.join(f'`{name}`' for name in names)}.\n")
    return "\n".join(parts)


def variables(group: Any, words: tuple[str, ...]) -> list[str]:
    """Return the environment variables of a command's options; none for a group."""
    from bge_eval.cli.defaults import option_name, variable

    for word in words:
        group = group.commands[word]
    if hasattr(group, "commands"):
        return []
    options = [each for each in group.params if each.param_type_name == "option"]
    return [variable(words, option_name(option)) for option in options]


def command_names(group: Any, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the words of every command, e.g. ``("data", "fetch")``."""
    names: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        names.append((*before, name))
        if hasattr(command, "commands"):
            names += command_names(command, (*before, name))
    return names
