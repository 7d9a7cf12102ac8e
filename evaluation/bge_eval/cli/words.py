"""The options of ``bge-eval run`` as words, and the records that the words are parsed to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import typer

from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.data import DataFlags
from bge_eval.cli.options.machine import MachineFlags
from bge_eval.cli.options.model import ModelFlags
from bge_eval.cli.options.reranker import RerankerFlags
from bge_eval.cli.options.served import ServerFlags
from bge_eval.cli.options.tasks import TaskFlags
from bge_eval.errors import UsageError
from bge_eval.experiment.file import Experiment

_WrongWord: Any = typer.BadParameter.__base__  # click's UsageError, which typer does not export


@dataclass(frozen=True, slots=True)
class Parsed:
    """The options of one setting."""

    tasks: TaskFlags
    model: ModelFlags
    reranker: RerankerFlags
    server: ServerFlags
    data: DataFlags
    machine: MachineFlags


def parse(words: Sequence[str]) -> Parsed:
    """Parse the words of one ``bge-eval run``, with the checks that typer makes.

    Raises:
        UsageError: an option or a value is wrong.
    """
    parsed: list[Parsed] = []

    @grouped
    def setting(
        tasks: TaskFlags,
        model: ModelFlags,
        reranker: RerankerFlags,
        server: ServerFlags,
        data: DataFlags,
        machine: MachineFlags,
    ) -> None:
        parsed.append(Parsed(tasks, model, reranker, server, data, machine))

    try:
        _command(setting).main(list(words), prog_name="bge-eval run", standalone_mode=False)
    except _WrongWord as error:
        raise UsageError(str(error.format_message())) from error
    return parsed[0]


def parse_settings(experiment: Experiment) -> dict[int, Parsed]:
    """Parse every setting of an experiment, by its number from 0.

    Raises:
        UsageError: an option or a value is wrong; the message names the file and the setting.
    """
    parsed = {}
    for number, setting in enumerate(experiment.settings):
        try:
            parsed[number] = parse(setting.words())
        except UsageError as error:
            label = setting.label(experiment.varied)
            place = f"{experiment.file}, {label}" if label else str(experiment.file)
            raise UsageError(f"{place}: {error}") from error
    return parsed


@cache
def repeating_options() -> dict[str, bool]:
    """Return every option of ``bge-eval run``, without dashes → whether it may be repeated."""
    from bge_eval.cli.run import run

    return {
        option.opts[0].removeprefix("--"): bool(option.multiple)
        for option in _command(run).params
        if option.param_type_name == "option"
    }


def typed_options(context: typer.Context) -> dict[str, Any]:
    """Return the options that are not at their default: option, without dashes → value.

    An option of the command line, the environment or a file of defaults counts.
    """
    typed: dict[str, Any] = {}
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if source is None or source.name == "DEFAULT" or option.param_type_name != "option":
            continue
        value = context.params[str(option.name)]
        is_text = not isinstance(value, bool | list | tuple)
        typed[option.opts[0].removeprefix("--")] = (
            str(value)
            if is_text
            else value
            if isinstance(value, bool)
            else [str(each) for each in value]
        )
    return typed


def _command(function: Any) -> Any:
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return typer.main.get_command(app)
