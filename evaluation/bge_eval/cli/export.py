"""``bge-eval export``: results for mteb's public repository and for a model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.saved import SavedFlags
from bge_eval.errors import MissingError, UsageError

if TYPE_CHECKING:
    from bge_eval.results.saved import SavedResult


@dataclass(frozen=True, slots=True)
class ExportFlags:
    """What is written, and from which results."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write mteb's result files here, as its repository has them."
        ),
    ] = None
    model_index: Annotated[
        Path | None,
        typer.Option(help="Write a model card's model-index (YAML) here; - for the terminal."),
    ] = None
    experiments: Annotated[
        bool,
        typer.Option(
            "--experiments", help="Take results with other than the model's own settings too."
        ),
    ] = False


@grouped
def export(saved: SavedFlags, flags: ExportFlags) -> None:
    """Write saved results for others: mteb's public results repository, or a model card.

    Only mteb's files are written (runs and texts stay here), and mteb reads them back before they
    are put in place. Results of your own collections have no place in the public repository.

    Examples:
      bge-eval export results/runs -o mteb-results

      bge-eval export results/runs --models my-model --model-index model-index.yaml
    """
    if flags.output is None and flags.model_index is None:
        raise UsageError(
            "Say what to write: --output FOLDER for mteb's result files, --model-index FILE for a"
            " model card."
        )
    results = _wanted(saved)
    if flags.model_index is not None:
        own = [result for result in results if flags.experiments or not result.experiment]
        _write_model_index(own, flags.model_index)
    if flags.output is not None:
        if flags.output.is_file():
            raise UsageError(f"--output {flags.output} is a file; give a folder.")
        _write_results(results, flags.output, experiments=flags.experiments)


def _write_model_index(results: list[SavedResult], path: Path) -> None:
    """Write the results of one model as its card's model-index; to the terminal for ``-``."""
    from bge_eval.cli.console import stdout
    from bge_eval.results.export import model_index
    from bge_eval.results.whole import whole_file

    text = model_index(results)
    if str(path) == "-":
        stdout.file.write(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(text)
    stdout.print(str(path), markup=False, soft_wrap=True)


def _write_results(results: list[SavedResult], output: Path, *, experiments: bool) -> None:
    """Write mteb's files; print their paths, and on stderr what was left out."""
    from bge_eval.cli.console import stderr, stdout
    from bge_eval.results.export import describe
    from bge_eval.results.export import export as write

    report = write(results, output, experiments=experiments)
    for line in describe(report):
        stderr.print(line, style="yellow", markup=False, soft_wrap=True)
    for path in report.done:
        stdout.print(str(path), markup=False, soft_wrap=True)


def _wanted(saved: SavedFlags) -> list[SavedResult]:
    """Return the results of the tasks and models that the options name.

    Raises:
        UsageError: a name is no suite and no task.
        MissingError: there are no such results.
    """
    from bge_eval.cli.columns import columns_of, refuse_unknown
    from bge_eval.results.saved import SavedResult, find_results

    results = [SavedResult(path) for path in find_results(saved.folders)]
    if saved.task_names:
        columns = columns_of(saved.task_names)
        wanted = {task.task for column in columns for task in (column, *column.parts)}
        results = [result for result in results if result.task in wanted]
        if not results:
            refuse_unknown(columns)
    results = [result for result in results if saved.is_wanted(result.label)]
    if not results:
        raise MissingError("There is no result of these tasks and models.")
    return results
