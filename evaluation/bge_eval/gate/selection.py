"""Select the baseline, and one saved run for each task."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_eval.errors import MissingError, UsageError, did_you_mean
from bge_eval.gate.baseline import KIND, Baseline, read_baseline
from bge_eval.gate.entry import entry_of
from bge_eval.results.saved import SavedResult, find_results, read_json

BASELINES = Path("results/baselines")
"""Folder of the baselines that are named without a path."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of several runs of a task to judge."""

    model: str = ""
    """The run's name, or a part of its name or revision; "" for any."""
    latest: bool = False
    """Take the newest run of each task."""


def find_baseline(name: str, measures: Iterable[str] = ()) -> Baseline:
    """Return a baseline by its file or name, or use a run as the baseline.

    Args:
        name: a file, a name in ``results/baselines``, a folder of results or a single result.
        measures: for a run, measures to compute besides the saved ones.

    Raises:
        MissingError: there is no such baseline or run.
        UsageError: a folder holds several runs of a task.
        DamagedError: a file cannot be read.
    """
    path = baseline_path(name)
    if not path.is_file():
        path = Path(name).expanduser()
    if not path.exists():
        saved = sorted(file.stem for file in BASELINES.glob("*.json"))
        available = f" {BASELINES} holds {', '.join(saved)}." if saved else ""
        raise MissingError(
            f"There is no baseline {name} ({baseline_path(name)}).{did_you_mean(name, saved)}"
            f"{available} `bge-eval check --update --baseline {name}` creates it from saved runs."
        )
    if path.is_file() and read_json(path).get("kind") == KIND:
        return read_baseline(path)
    results = select_runs([path], Selection(), option="--baseline")
    entries = {task: entry_of(result, measures) for task, result in results.items()}
    return Baseline(next(iter(entries.values())).model, path, entries)


def baseline_path(name: str) -> Path:
    """Return a baseline's file: a path as it is, a bare name in ``results/baselines``."""
    path = Path(name).expanduser()
    is_bare = path.name == name and path.suffix != ".json"
    return BASELINES / f"{name}.json" if is_bare else path


def select_runs(
    folders: Sequence[Path],
    selection: Selection,
    tasks: Collection[str] | None = None,
    *,
    option: str = "--model",
) -> dict[str, SavedResult]:
    """Return one run for each task.

    Args:
        folders: folders of results, or single results.
        selection: which of several runs of a task to take.
        tasks: the tasks to look for; None for all.
        option: the option that the error message recommends.

    Returns:
        Task → result, in the order of the folders; tasks without a result are left out.

    Raises:
        UsageError: several runs of a task remain, or no run has the selected model.
        MissingError: a folder does not exist or holds no results.
    """
    by_task: dict[str, list[SavedResult]] = {}
    for path in find_results(folders):
        if tasks is None or path.stem in tasks:
            by_task.setdefault(path.stem, []).append(SavedResult(path))
    if selection.model and by_task:
        by_task = _of_model(by_task, selection.model)
    if selection.latest:
        by_task = {task: [max(results, key=_time)] for task, results in by_task.items()}
    ambiguous = {task: results for task, results in by_task.items() if len(results) > 1}
    if ambiguous:
        raise _ambiguous_error(ambiguous, option)
    return {task: results[0] for task, results in by_task.items()}


def _of_model(by_task: Mapping[str, list[SavedResult]], model: str) -> dict[str, list[SavedResult]]:
    """Keep the runs with exactly this name, or else those whose name contains it."""
    folded = model.casefold()
    runs = [result for results in by_task.values() for result in results]
    exact = {result.path for result in runs if folded in (_name(result), result.label.casefold())}
    matches = exact or {result.path for result in runs if folded in _name(result)}
    if not matches:
        names = sorted({result.label for result in runs})
        raise UsageError(
            f"No run's name contains '{model}'.{did_you_mean(model, names)}"
            f" Saved runs: {'; '.join(names)}."
        )
    return {
        task: matching
        for task, results in by_task.items()
        if (matching := [result for result in results if result.path in matches])
    }


def _name(result: SavedResult) -> str:
    return f"{result.label}@{result.meta.get('revision', '')}".casefold()


def _time(result: SavedResult) -> tuple[str, float]:
    """Return a sort key that is larger for newer runs; a run without a date is the oldest."""
    return (result.record.created, result.path.stat().st_mtime)


def _ambiguous_error(ambiguous: Mapping[str, list[SavedResult]], option: str) -> UsageError:
    task, results = next(iter(ambiguous.items()))
    lines = [f"There are {len(results)} runs of {task}; select one."]
    lines += [
        f"- {result.label} ({str(result.meta.get('revision', ''))[:8]})"
        f" of {result.record.created or 'unknown date'}: {result.path}"
        for result in sorted(results, key=_time, reverse=True)
    ]
    others = [name for name in ambiguous if name != task]
    if others:
        lines.append(f"Several runs also of: {', '.join(others)}.")
    if option == "--model":
        lines.append(
            "Pass --model NAME (all or part of the name or revision), --latest for the newest run"
            " of each task, or the path of the folder or result."
        )
    else:
        lines.append(f"Pass the path of one result to {option}, or write a baseline with --update.")
    return UsageError("\n".join(lines))
