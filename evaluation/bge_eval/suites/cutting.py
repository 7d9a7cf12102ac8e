"""Plan parts of tasks: their first queries, and corpora with the documents that runs rank first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bge_eval.data.cutting import refuse_uncuttable
from bge_eval.errors import MissingError, UsageError
from bge_eval.models.saved_runs import run_file
from bge_eval.records import SplitKey
from bge_eval.results.cut import Cut, Lite, is_cut
from bge_eval.results.saved import SavedResult, find_results
from bge_eval.results.trec import read_run
from bge_eval.search.ranking import ranked
from bge_eval.suites.catalogue import PlannedTask

_DIGITS = 8
"""Hexadecimal digits of the digest of kept documents."""


def cut_tasks(
    planned: Sequence[PlannedTask], limit: int | None, lite: Lite | None
) -> list[PlannedTask]:
    """Return tasks of which only a part is scored.

    Args:
        planned: the tasks; those with a cut in their name (``SciFact@limit=50``) keep it.
        limit: number of queries of every split and subset, the first; None for all.
        lite: how corpora are cut; None for whole ones.

    Raises:
        UsageError: a cut has no meaning for a task; the message names it.
        MissingError: there is no folder of runs, or no run of a task in them.
    """
    asked = Cut(limit=limit or 0)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: it takes 1 or more queries.")
    if lite is not None:
        _refuse_numbers(lite)
        top = lite.top if lite.folders else 0
        asked = replace(asked, lite=lite.sample, seed=lite.seed, top=top)
    folders = lite.folders if lite else ()
    results = _results(folders)
    if asked:
        _refuse_all(planned, asked)
    return [_cut(task, asked, results, folders) for task in planned]


def refuse_mixed(planned: Sequence[PlannedTask]) -> None:
    """Refuse tasks that have no mean together, where the mean over them decides.

    Raises:
        UsageError: some are whole and others cut, or they are cut in different ways.
    """
    if len({task.cut.kind for task in planned}) > 1:
        raise UsageError(
            "The mean over the tasks decides here, and whole tasks and cuts have none together:"
            f" {', '.join(task.name for task in planned)}. Cut all of them in the same way."
        )


def _refuse_numbers(lite: Lite) -> None:
    for name, value, least in (
        ("sample", lite.sample, 1),
        ("top", lite.top, 1),
        ("seed", lite.seed, 0),
    ):
        if value < least:
            raise UsageError(f"--lite-{name} {value}: it takes {least} or more.")


def _refuse_all(planned: Iterable[PlannedTask], asked: Cut) -> None:
    """Refuse all tasks for which a cut has no meaning, in one message."""
    refused = []
    for single in (part for task in planned for part in task.parts or (task,)):
        try:
            refuse_uncuttable(single.task, asked)
        except UsageError as error:
            refused.append(str(error))
    if refused:
        raise UsageError("\n".join(refused))


def _cut(
    planned: PlannedTask, asked: Cut, results: Sequence[SavedResult], folders: Sequence[Path]
) -> PlannedTask:
    """Return one task, with its parts, of which what was asked for is scored."""
    if planned.cut and asked:
        raise UsageError(
            f"{planned.name} names a cut, and --limit or --lite does too: leave one of them out."
        )
    cut = asked or planned.cut
    if planned.parts:
        parts = tuple(_cut(part, asked, results, folders) for part in planned.parts)
        digests = "".join(part.cut.runs for part in parts)
        runs = hashlib.sha256(digests.encode()).hexdigest()[:_DIGITS] if digests else ""
        return replace(planned, parts=parts, cut=replace(cut, runs=runs) if runs else cut)
    refuse_uncuttable(planned.task, cut)
    if not folders:
        return replace(planned, cut=cut)
    kept = _kept(planned, cut.top, results, folders)
    listed = sorted((*key, document) for key, documents in kept.items() for document in documents)
    digest = hashlib.sha256("\n".join("\0".join(line) for line in listed).encode()).hexdigest()
    return replace(planned, cut=replace(cut, runs=digest[:_DIGITS]), kept=kept)


def _results(folders: Sequence[Path]) -> list[SavedResult]:
    """Return the results in folders that hold some; a folder of TREC runs holds none.

    Raises:
        MissingError: a folder does not exist.
    """
    results: list[SavedResult] = []
    for folder in folders:
        if not folder.is_dir():
            raise MissingError(f"--lite-runs {folder}: there is no such folder.")
        if any(folder.rglob("model_meta.json")):
            results += map(SavedResult, find_results([folder]))
    return [result for result in results if not is_cut(result.task)]


def _kept(
    planned: PlannedTask, top: int, results: Iterable[SavedResult], folders: Iterable[Path]
) -> dict[SplitKey, set[str]]:
    """Return (subset, split) → the documents that some run has among a query's first ones.

    Raises:
        MissingError: no run is of a split and subset that is scored.
    """
    own = [result for result in results if result.task == planned.task_name]
    kept: dict[SplitKey, set[str]] = {}
    for subset in planned.task.hf_subsets:
        for split in planned.task.eval_splits:
            key = (subset, split)
            runs = [result.run(key) for result in own if key in result.keys]
            of_trec = [folder for folder in folders if not (folder / "model_meta.json").is_file()]
            files = [run_file(folder, planned.task_name, key) for folder in of_trec]
            runs += [read_run(file) for file in files if file is not None]
            if not runs:
                raise MissingError(
                    f"--lite-runs {', '.join(map(str, folders))}: no run of {planned.task_name},"
                    f" {subset}, {split} is there. Run a model on it first, such as --model bm25,"
                    " or leave --lite-runs out."
                )
            kept[key] = {
                document
                for run in runs
                for scores in run.values()
                for document in ranked(scores, top)
            }
    return kept
