"""``bge-eval prompts``: how much of a score is the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.formats.registry import Format, write
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.saved import SavedFlags
from bge_eval.errors import MissingError

if TYPE_CHECKING:
    from bge_eval.compare.sides import Side


@grouped
def prompts(
    saved: SavedFlags,
    metric: Annotated[
        str,
        typer.Option(
            help="main (every task's own), or any measure as ir_measures writes it: nDCG@20 …"
        ),
    ] = "main",
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the randomisation test over queries.")
    ] = 0,
    form: Annotated[Format, typer.Option("--format", help="Format of the output.")] = (
        Format.TERMINAL
    ),
) -> None:
    """Tell how much of a score is the prompt, and which differences outlive it.

    Saved results that differ in their prompts only are one model: its score is the mean over them,
    with the standard deviation, the best and the worst. Two models are compared over queries and
    prompts, both taken as samples (Clark 1973). `bge-eval run experiment.toml` with paraphrases
    makes such results.

    Examples:
      bge-eval prompts

      bge-eval prompts results/paraphrases --tasks SciFact --metric RR@10

      bge-eval prompts --models bge-base --models e5-base --format json
    """
    from bge_eval.cli.console import TerminalProgress, stdout
    from bge_eval.cli.prompted import PromptOutput
    from bge_eval.compare.prompts import models_of, report
    from bge_eval.compare.sides import sides_in
    from bge_eval.measures.measure import parse_measure

    name = metric.strip()
    measure = "main" if name.casefold() == "main" else str(parse_measure(name))
    sides = [side for folder in saved.folders for side in sides_in(folder)]
    models = [each for each in models_of(sides) if saved.is_wanted(each.label)]
    tasks = _tasks(saved, [side for model in models for side in model.sides])
    if not models or not tasks:
        wanted = ", ".join([*saved.model_names, *saved.task_names])
        raise MissingError(
            f"No result in {', '.join(map(str, saved.folders))} is of {wanted}. `bge-eval table"
            f" {saved.folders[0]}` lists what is there."
        )
    with TerminalProgress().step("compare", len(tasks), "tasks") as step:
        content = report(models, tasks, measure, seed=seed)
        step.advance(len(tasks))
    if all(len(each.scores) == 1 for each in content.spreads):
        raise MissingError(
            "Every model there was run with one prompt, so that nothing is known of its share."
            ' State several in the file of an experiment, paraphrases = "prompts.toml", and'
            " run it: bge-eval run experiment.toml"
        )
    write(PromptOutput(content), form, stdout)


def _tasks(saved: SavedFlags, sides: Sequence[Side]) -> list[str]:
    """Return the named tasks that have a result, or all but the parts of aggregates."""
    results = [result for side in sides for result in side.results.values()]
    there = dict.fromkeys(result.task for result in results)
    if not saved.task_names:
        parts = {part for result in results for part in result.record.aggregate_of}
        return [task for task in there if task not in parts]
    from bge_eval.cli.columns import columns_of

    named = [name for name in saved.task_names if name in there]
    others = [name for name in saved.task_names if name not in there]
    named += [column.task for column in (columns_of(others) if others else [])]
    return [task for task in dict.fromkeys(named) if task in there]
