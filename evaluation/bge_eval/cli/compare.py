"""``bge-eval compare``: differences between systems, with significance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.formats.registry import Format, write
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.saved import DEFAULT_RUNS
from bge_eval.cli.options.tasks import split_names

if TYPE_CHECKING:
    from bge_eval.compare.outputs import Output
    from bge_eval.compare.pairs import Pair
    from bge_eval.compare.sides import Side


@dataclass(frozen=True, slots=True)
class CompareFlags:
    """The sides of a comparison, and how they are compared."""

    sides: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C…]",
            help="A model's name, a folder of results, one result, a TREC run, or `published`"
            " (`published:org/model`). Each is compared with the first; a training alone: each"
            " later checkpoint with its first.",
            show_default=False,
        ),
    ]
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Where models' names are looked for; repeat. Default: results/runs.",
            show_default=False,
        ),
    ] = None
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks", "-t", help="Suites and tasks; repeat. Default: every task that both have."
        ),
    ] = None
    metric: Annotated[
        str,
        typer.Option(
            help="main (every task's own), or any measure as ir_measures writes it: nDCG@20,"
            " RR@10, AP(rel=2) …"
        ),
    ] = "main"
    queries: Annotated[
        int,
        typer.Option(
            min=0, help="Show the N queries that gained most and the N that lost most.", metavar="N"
        ),
    ] = 0
    qrels: Annotated[
        Path | None,
        typer.Option(help="Judgements for TREC runs. Default: those of the other side's task."),
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of the randomisation test.")] = 0
    allow_different: Annotated[
        bool,
        typer.Option(
            "--allow-different",
            help="Compare though data, split, judgements or measure differ, on what both have.",
        ),
    ] = False
    form: Annotated[Format, typer.Option("--format", help="Format of the table.")] = Format.TERMINAL

    @property
    def measure(self) -> str:
        """The measure in ir_measures' spelling, or ``main``.

        Raises:
            UsageError: no measure has this name.
        """
        from bge_eval.compare.outputs import MAIN
        from bge_eval.measures.measure import parse_measure

        metric = self.metric.strip()
        return MAIN if metric.casefold() == MAIN else str(parse_measure(metric))


@grouped
def compare(flags: CompareFlags) -> None:
    """Compare systems query by query: differences, intervals, p-values.

    95% intervals of the difference exclude 0 exactly where p is below 0.05; p-values are
    those of Fisher's paired randomisation test (Smucker, Allan and Carterette 2007), exact for
    few queries, corrected over the tasks by Holm's method (1979). d is Cohen's effect size for
    pairs. A mean over tasks draws queries within their own task. The same --seed gives the same
    numbers.

    What was not scored on the same data, split and judgements is not compared.

    Examples:
      bge-eval compare bge-base-en-v1.5 my-bge

      bge-eval compare results/before results/after --tasks beir --queries 3

      bge-eval compare results/training

      bge-eval compare published:BAAI/bge-base-en-v1.5 my-bge --tasks beir

      bge-eval compare bm25.trec dense.trec --qrels qrels.tsv --metric RR@10
    """
    from bge_eval.cli.comparison import ComparisonOutput
    from bge_eval.cli.console import stderr, stdout
    from bge_eval.compare.pairs import corrected
    from bge_eval.errors import UsageError

    sides = _sides(flags)
    if len(sides) < 2:
        raise UsageError(
            f"'{flags.sides[0]}' has nothing to be compared with: give two or more models, folders"
            " of results, TREC runs, or `published`; or a folder with the checkpoints of one"
            " training."
        )
    pairs = corrected(_pairs(flags, sides))
    write(ComparisonOutput(pairs, flags.seed, flags.queries), flags.form, stdout)
    if flags.form is Format.CSV:
        for note in (note for pair in pairs for note in pair.notes):
            stderr.print(note, style="yellow", markup=False, soft_wrap=True)


def _sides(flags: CompareFlags) -> list[Side]:
    """Return the sides: those that are named, or the checkpoints of the training that is."""
    from bge_eval.compare.sides import find_side, series_sides

    runs = flags.runs or [DEFAULT_RUNS]
    if len(flags.sides) == 1:
        return series_sides(flags.sides[0], runs)
    return [find_side(text, runs) for text in flags.sides]


def _pairs(flags: CompareFlags, sides: list[Side]) -> list[Pair]:
    """Compare every other side with the first."""
    from bge_eval.cli.console import TerminalProgress
    from bge_eval.compare.pairs import compare_pair
    from bge_eval.compare.sides import differing, distinguish

    metric, names = flags.measure, split_names(flags.tasks)
    sides, published_notes = _published(sides, names, metric)
    labels = distinguish(sides)
    first, *others = sides
    plans = [_planned(names, first, other) for other in others]
    pairs: list[Pair] = []
    total = sum(len(chosen) for chosen, _ in plans)
    with TerminalProgress().step("compare", total, "tasks") as step:
        for other, label, (chosen, suites) in zip(others, labels[1:], plans, strict=True):
            titles = (labels[0], label)
            both, missing = _outputs((first, other), titles, chosen, metric, flags.qrels)
            pair = compare_pair(
                titles,
                both,
                suites,
                seed=flags.seed,
                allow_different=flags.allow_different,
                step=lambda task: step.advance(1),
            )
            differences = _differences(differing(first, other, list(both)), *titles)
            notes = [*pair.notes, *missing, *published_notes, *differences]
            pairs.append(replace(pair, notes=tuple(notes)))
    return pairs


def _planned(
    names: Sequence[str], first: Side, other: Side
) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the tasks to compare, and (title, tasks) of the means to show."""
    saved = [side.results for side in (first, other) if side.results]
    if not names:
        parts = {
            part
            for results in saved
            for result in results.values()
            for part in result.record.aggregate_of
        }
        tasks = dict.fromkeys(task for results in saved for task in results)
        chosen = [task for task in tasks if task not in parts]
        common = [task for task in chosen if all(task in results for results in saved)]
        # Two TREC runs have no task but their judgements.
        return chosen or ["run"], _means(common)
    chosen, suites = [], []
    for name in names:
        inside = [name] if any(name in results for results in saved) else _plan(name)
        chosen += inside
        if len(inside) > 1:
            suites.append((name, inside))
    chosen = list(dict.fromkeys(chosen))
    if len(suites) != 1 or len(suites[0][1]) != len(chosen):
        suites += _means(chosen)
    return chosen, suites


def _means(tasks: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return (title, tasks) of the mean over all tasks; cuts of tasks have a mean of their own."""
    from bge_eval.results.cut import split_name

    kinds: dict[str, list[str]] = {}
    for task in tasks:
        kinds.setdefault(split_name(task)[1].kind, []).append(task)
    return [
        (f"all tasks@{kind}" if kind else "all tasks", of_kind) for kind, of_kind in kinds.items()
    ]


def _plan(name: str) -> list[str]:
    """Resolve a suite or task; a name that is neither is a collection of the user's own."""
    from bge_eval.errors import UsageError
    from bge_eval.suites.catalogue import plan

    try:
        return [task.name for task in plan([name])]
    except UsageError:
        return [name]


def _outputs(
    sides: tuple[Side, Side],
    labels: tuple[str, str],
    tasks: Sequence[str],
    metric: str,
    qrels: Path | None,
) -> tuple[dict[str, tuple[Output, Output]], list[str]]:
    """Return what both sides have on each task, and notes of what one of them lacks."""
    from bge_eval.compare.outputs import judged, output
    from bge_eval.errors import UsageError

    files = [side.run_file for side in sides if side.run_file]
    if files and len(tasks) > 1:
        raise UsageError(
            f"{files[0]} is a run of one task, and there are {len(tasks)}: {', '.join(tasks)}."
            " --tasks names one."
        )
    both: dict[str, tuple[Output, Output]] = {}
    missing: dict[str, list[str]] = {}
    for task in tasks:
        outputs = [None if side.run_file else output(side, task, metric) for side in sides]
        known = next((one for one in outputs if one), None)
        for index, side in enumerate(sides):
            if side.run_file:
                outputs[index] = judged(side, task, metric, known, qrels)
        if outputs[0] and outputs[1]:
            both[task] = (outputs[0], outputs[1])
        else:
            lacking = [label for label, own in zip(labels, outputs, strict=True) if not own]
            missing.setdefault(" and ".join(lacking), []).append(task)
    wanted = "" if metric == "main" else f" with {metric}"
    notes = [
        f"left out, for want of a result{wanted} of {label}: {', '.join(lacking)}"
        for label, lacking in missing.items()
    ]
    if not both:
        raise UsageError(f"{labels[0]} and {labels[1]} have no task in common: {'; '.join(notes)}.")
    return both, notes


def _differences(differences: Mapping[str, tuple[str, str]], first: str, second: str) -> list[str]:
    """Return one line with the fields in which two identities differ; none if they agree."""
    if not differences:
        return []
    fields = [f"{name} ({before} → {after})" for name, (before, after) in differences.items()]
    return [f"{first} and {second} differ in {', '.join(fields)}"]


def _published(
    sides: Sequence[Side], names: Sequence[str], metric: str
) -> tuple[list[Side], list[str]]:
    """Look up the scores of published sides, over the splits and subsets that the others have."""
    if all(side.published is None for side in sides):
        return list(sides), []
    from bge_eval.cli.columns import as_run, columns_of, published_beside
    from bge_eval.errors import MissingError, UsageError, did_you_mean
    from bge_eval.leaderboard.rows import Aggregates
    from bge_eval.measures.mteb_keys import MAIN_KEY, parse_key

    key = MAIN_KEY if metric == "main" else parse_key(metric)
    own = [side for side in sides if side.published is None and side.results]
    tasks = list(names) or list(dict.fromkeys(task for side in own for task in side.results))
    if not tasks:
        raise UsageError("Published scores alone have no tasks: --tasks names tasks or a suite.")
    saved = {task: [side.results[task].scores for side in own if task in side.results]
             for task in tasks}  # fmt: skip
    columns = [as_run(column, saved.get(column.task, ())) for column in columns_of(tasks)]
    rows = {row.model: row for row in published_beside(columns, key, Aggregates.RECOMPUTED)}
    resolved, notes = [], []
    for side in sides:
        if side.published is None:
            resolved.append(side)
            continue
        model = side.published or next((other.model for other in own), "")
        row = rows.get(model)
        if row is None:
            raise MissingError(
                f"There are no published scores of {model or 'this run'} on {', '.join(tasks)}."
                f"{did_you_mean(model, rows)} `published:org/model` names a model of the public"
                " results; `bge-eval table --published --tasks …` lists them."
            )
        if row.other_data:
            notes.append(
                f"published scores of {model} on another, or an unstated, revision of the data:"
                f" {', '.join(row.other_data)}"
            )
        resolved.append(replace(side, label=f"{model} (published)", scores=row.scores))
    return resolved, notes
