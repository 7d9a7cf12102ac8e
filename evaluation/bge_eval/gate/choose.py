"""Find the baseline and select one saved run of every task."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_eval.errors import MissingError, UsageError, did_you_mean
from bge_eval.gate.baseline import KIND, Baseline, entry_of, read_baseline
from bge_eval.results.saved import SavedResult, find_results, read_json

BASELINES = Path("results/baselines")
"""Folder of baselines that are given by name."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Selects among several runs of a task."""

    model: str = ""
    """A run's name, or part of its name or revision; "" for any."""
    latest: bool = False
    """Whether to take the newest of several runs."""


def find_baseline(given: str, measures: Iterable[str] = ()) -> Baseline:
    """Return a baseline from its file, from its name, or from a run.

    Args:
        given: a file, a name in ``results/baselines``, a folder of results or a single result.
        measures: measures to read from a run beside those that every run stores.

    Raises:
        MissingError: there is no such baseline.
        UsageError: a folder holds several runs of a task.
        DamagedError: it cannot be read.
    """
    path = baseline_path(given)
    if not path.is_file():
        path = Path(given).expanduser()
    if not path.exists():
        known = sorted(file.stem for file in BASELINES.glob("*.json"))
        here = f" {BASELINES} holds {', '.join(known)}." if known else ""
        raise MissingError(
            f"There is no baseline {given} ({baseline_path(given)}).{did_you_mean(given, known)}"
            f"{here} `bge-eval check --update --baseline {given}` writes it from the runs."
        )
    if path.is_file() and read_json(path).get("kind") == KIND:
        return read_baseline(path)
    chosen = choose([path], Choice(), option="--baseline")
    entries = {task: entry_of(result, measures) for task, result in chosen.items()}
    return Baseline(next(iter(entries.values())).model, path, entries)


def baseline_path(given: str) -> Path:
    """Return the file of a baseline: the path itself, or a name's place in results/baselines."""
    path = Path(given).expanduser()
    is_name = path.name == given and path.suffix != ".json"
    return BASELINES / f"{given}.json" if is_name else path


def choose(
    places: Sequence[Path],
    choice: Choice,
    tasks: Collection[str] | None = None,
    *,
    option: str = "--model",
) -> dict[str, SavedResult]:
    """Select one run of every task.

    Args:
        places: folders of results, or results.
        choice: selects among several runs of a task.
        tasks: the tasks to select; None for all.
        option: the option that the error message names.

    Returns:
        Task → result, in the order of the files; tasks without a result are left out.

    Raises:
        UsageError: several runs of a task remain, or no run matches the model.
        MissingError: a folder does not exist or holds no results.
    """
    by_task: dict[str, list[SavedResult]] = {}
    for path in find_results(places):
        if tasks is None or path.stem in tasks:
            by_task.setdefault(path.stem, []).append(SavedResult(path))
    if choice.model and by_task:
        by_task = _of_model(by_task, choice.model)
    if choice.latest:
        by_task = {task: [max(found, key=_age)] for task, found in by_task.items()}
    several = {task: found for task, found in by_task.items() if len(found) > 1}
    if several:
        raise _ask(several, option)
    return {task: found[0] for task, found in by_task.items()}


def _of_model(
    by_task: Mapping[str, list[SavedResult]], wanted: str
) -> dict[str, list[SavedResult]]:
    """Select runs by name: those with exactly this name, or else those that contain it."""
    folded = wanted.casefold()
    every = [result for found in by_task.values() for result in found]
    exact = {result.path for result in every if folded in (_name(result), result.label.casefold())}
    kept = exact or {result.path for result in every if folded in _name(result)}
    if not kept:
        names = sorted({result.label for result in every})
        raise UsageError(
            f"No run's name contains '{wanted}'.{did_you_mean(wanted, names)}"
            f" There are: {'; '.join(names)}."
        )
    return {
        task: left
        for task, found in by_task.items()
        if (left := [result for result in found if result.path in kept])
    }


def _name(result: SavedResult) -> str:
    return f"{result.label}@{result.meta.get('revision', '')}".casefold()


def _age(result: SavedResult) -> tuple[str, float]:
    """Return a sort key that grows with a run's time; runs without a time come first."""
    return (result.record.created, result.path.stat().st_mtime)


def _ask(several: Mapping[str, list[SavedResult]], option: str) -> UsageError:
    task, found = next(iter(several.items()))
    lines = [f"There are {len(found)} runs of {task}; choose one."]
    lines += [
        f"- {result.label} ({str(result.meta.get('revision', ''))[:8]})"
        f" of {result.record.created or 'an unknown time'}: {result.path}"
        for result in sorted(found, key=_age, reverse=True)
    ]
    others = [name for name in several if name != task]
    if others:
        lines.append(f"The same with {', '.join(others)}.")
    if option == "--model":
        lines.append(
            "Add --model NAME (the name, or part of it or of the revision), --latest for"
            " the newest of each task, or give the path of the folder or the result."
        )
    else:
        lines.append(f"Give {option} the path of the result, or write a baseline with --update.")
    return UsageError("\n".join(lines))
