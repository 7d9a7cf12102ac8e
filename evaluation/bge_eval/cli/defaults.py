"""Defaults of options: a file of the project's, and environment variables.

::

    [run]                             # bge-eval.toml; in pyproject.toml: [tool.bge-eval.run]
    data-dir = ["./datasets"]         # options by their names without dashes
    offline = true
    [data.fetch]
    data-dir = "./datasets"

``BGE_EVAL_RUN_OFFLINE=1`` is the same for one option. The command line comes first, then the
environment, then the file, then the option's own default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from bge_eval.errors import DamagedError, UsageError, did_you_mean, one_line

FILE = "bge-eval.toml"
"""The name of a file of defaults; the other is the table in ``pyproject.toml``."""
_PROJECT = "pyproject.toml"
_TABLE = "bge-eval"


@dataclass(frozen=True, slots=True)
class Defaults:
    """The defaults that apply in a folder."""

    file: Path | None = None
    """The file; None if there is none."""
    tables: Mapping[str, Any] | None = None
    """Command → its table, a group's command in the table of the group."""

    def place(self, words: Sequence[str]) -> str:
        """Return the file and the table of a command, for people."""
        inside = "tool.bge-eval." if self.file and self.file.name == _PROJECT else ""
        return f"{self.file} [{inside}{'.'.join(words)}]"

    def values(self, words: Sequence[str], options: Sequence[Any]) -> dict[str, Any]:
        """Return a command's defaults as typer's map: name of the parameter → value.

        Args:
            words: the command, such as ``["data", "fetch"]``.
            options: typer's options of the command.

        Raises:
            UsageError: a key is no option of the command, or has a value of another kind.
        """
        table: Any = self.tables or {}
        for word in words:
            table = table.get(word, {}) if isinstance(table, dict) else table
        if not isinstance(table, dict):
            raise UsageError(f"{self.place(words)} is no table of options, but {table!r}.")
        by_name = {option_name(option): option for option in options}
        values: dict[str, Any] = {}
        for key, value in table.items():
            option = by_name.get(key)
            if option is None:
                raise UsageError(
                    f"{self.place(words)}: '{key}' is no option of bge-eval {' '.join(words)}."
                    f"{did_you_mean(key, by_name)} Keys are its options without dashes:"
                    f" {', '.join(by_name)}."
                )
            values[str(option.name)] = self._value(words, key, value, option)
        return values

    def _value(self, words: Sequence[str], key: str, value: Any, option: Any) -> Any:
        """Return a value in the form that the option takes."""
        values = value if isinstance(value, list) else [value]
        kinds = (bool,) if option.is_flag else (str, int, float)
        fits = all(isinstance(each, kinds) for each in values) and not (
            isinstance(value, list) and not option.multiple
        )
        if not fits or (not option.is_flag and any(isinstance(each, bool) for each in values)):
            wanted = "true or false" if option.is_flag else "a text or a number"
            more = ", or a list of them" if option.multiple else ""
            raise UsageError(f"{self.place(words)}: '{key}' takes {wanted}{more}, not {value!r}.")
        return [str(each) for each in values] if option.multiple else value


def words_of(name: str | None, parent: Any) -> list[str]:
    """Return the words of a command below the program's own name, such as ``data fetch``."""
    words = [str(name)]
    while parent is not None and parent.parent is not None:
        words.insert(0, str(parent.info_name))
        parent = parent.parent
    return words


def find_defaults(folder: Path) -> Defaults:
    """Return the defaults of the nearest folder upwards that has some.

    Args:
        folder: where the search begins.

    Raises:
        UsageError: a folder has two files of defaults, or a table is of no command.
        DamagedError: a file is no TOML.
    """
    for place in (folder, *folder.parents):
        files = []
        if (place / FILE).is_file():
            files.append(Defaults(place / FILE, _read(place / FILE)))
        if (place / _PROJECT).is_file() and _TABLE in (tool := _tool(place / _PROJECT)):
            files.append(Defaults(place / _PROJECT, tool[_TABLE]))
        if len(files) > 1:
            raise UsageError(
                f"{place} has two files of defaults: {FILE} and [tool.bge-eval] in {_PROJECT}."
                " Keep one of them."
            )
        if files:
            from bge_eval.cli.app import COMMANDS, GROUPS

            known = [*COMMANDS, *GROUPS]
            for word, table in (files[0].tables or {}).items():
                if word not in known or not isinstance(table, dict):
                    raise UsageError(
                        f"{files[0].file}: '{word}' is no command of bge-eval with a table of"
                        f" options.{did_you_mean(word, known)} Tables are {', '.join(known)}."
                    )
            return files[0]
    return Defaults()


def option_name(option: Any) -> str:
    """Return the name of typer's option without dashes, such as ``max-length``."""
    longest: str = max(option.opts, key=len)
    return longest.removeprefix("--")


def variable(words: Sequence[str], option: str) -> str:
    """Return the environment variable of an option, such as ``BGE_EVAL_RUN_MAX_LENGTH``."""
    return "_".join(("BGE_EVAL", *words, option)).upper().replace("-", "_")


def refuse_unknown_variables(words: Sequence[str], options: Sequence[Any]) -> None:
    """Refuse variables of the environment that name no option of a command.

    Raises:
        UsageError: there is one.
    """
    known = [variable(words, option_name(option)) for option in options]
    prefix = variable(words, "")
    for name in sorted(os.environ):
        if name.startswith(prefix) and name not in known:
            raise UsageError(
                f"The environment has {name}, and bge-eval {' '.join(words)} has no such option."
                f"{did_you_mean(name, known)} Unset it."
            )


def set_variables(options: Sequence[Any], words: Sequence[str]) -> None:
    """Give every option of a command its environment variable."""
    for option in options:
        option.envvar = variable(words, option_name(option))


def show_configuration(context: typer.Context) -> None:
    """Print every option of a command, its value and where it comes from."""
    from bge_eval.cli.console import stdout
    from bge_eval.cli.formats.terminal import terminal_table

    words = words_of(context.info_name, context.parent)
    defaults = find_defaults(Path.cwd())
    rows = []
    for option in context.command.params:
        if option.param_type_name != "option" or option.name in ("help", "show_config"):
            continue
        value = context.params.get(str(option.name))
        source = context.get_parameter_source(str(option.name))
        places = {
            "COMMANDLINE": "command line",
            "ENVIRONMENT": variable(words, option_name(option)),
            "DEFAULT_MAP": defaults.place(words),
        }
        listed = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        text = "–" if listed in (None, "") else str(listed)
        place = places.get(source.name if source else "", "default")
        rows.append((option_name(option), text, place))
    stdout.print(terminal_table(("option", "value", "from"), rows, left=(0, 1, 2)))


def _tool(path: Path) -> Mapping[str, Any]:
    tool = _read(path).get("tool", {})
    return tool if isinstance(tool, dict) else {}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} is no readable TOML file ({one_line(error)}).") from error
