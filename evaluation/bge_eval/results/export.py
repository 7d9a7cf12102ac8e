"""Export of results: to the layout of mteb's public results repository, and to a model card.

Only mteb's own files are exported: results, ``model_meta.json`` and ``run_settings.jsonl``. TREC
runs, texts and run records are not.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.results.cut import is_cut
from bge_eval.results.saved import SavedResult

_SETTINGS = "run_settings.jsonl"
_APPROXIMATE = "searched by an index or over compressed vectors, whose scores are not the model's"
_CUT = "scored on a part of the task (--limit, --lite)"


@dataclass(slots=True)
class Exported:
    """The outcome of an export."""

    done: list[Path] = field(default_factory=list)
    """Result files in the new folder."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Reason → names of the results left out."""
    remarks: list[str] = field(default_factory=list)
    """Points that the public repository's reviewers will ask about."""


def export(results: Iterable[SavedResult], output: Path, *, experiments: bool = False) -> Exported:
    """Write results in the layout of mteb's public results repository, and check them with mteb.

    Args:
        results: the results to export.
        output: the folder; results of the same path are replaced, other files stay.
        experiments: whether to export results with settings that are not the model's own, into
            mteb's ``experiments`` folders.

    Raises:
        DamagedError: mteb cannot read a result.
        MissingError: nothing is left to export.
    """
    report = Exported()
    selected = _selected(results, report, experiments=experiments)
    _refuse_duplicates(selected)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".staging-", dir=output) as staging:
        _stage(selected, Path(staging), output)
        _check(Path(staging), len(selected))
        _put_in_place(Path(staging), output)
    report.done = [output / place for _, place in selected]
    report.remarks = _remarks([result for result, _ in selected])
    return report


def _selected(
    results: Iterable[SavedResult], report: Exported, *, experiments: bool
) -> list[tuple[SavedResult, Path]]:
    """Return the results to export with their places; name the others in the report.

    Raises:
        MissingError: nothing is left to export.
    """
    tasks = _mteb_tasks()
    selected: list[tuple[SavedResult, Path]] = []
    for result in results:
        if reason := _reason_against(result, tasks, experiments=experiments):
            report.left_out.setdefault(reason, []).append(f"{result.task} of {result.label}")
        else:
            selected.append((result, _place(result)))
    if not selected:
        reasons = "; ".join(f"{why}: {', '.join(of)}" for why, of in report.left_out.items())
        raise MissingError(f"There is nothing to export. {reasons or 'There are no results.'}")
    return selected


def _reason_against(result: SavedResult, tasks: Collection[str], *, experiments: bool) -> str:
    """Return why a result has no place in the public repository; "" if it has one."""
    if is_approximate(result):
        return _APPROXIMATE
    if is_cut(result.task):
        return _CUT
    if result.task not in tasks:
        return "mteb has no such task"
    if result.experiment and not experiments:
        return "not the model's own settings (--experiments takes them along)"
    return ""


def _mteb_tasks() -> set[str]:
    """Return the names of mteb's tasks, superseded ones too."""
    from mteb.filter_tasks import filter_tasks
    from mteb.get_tasks import TASK_LIST

    # Classes are enough: to make a task of each takes seconds.
    listed = filter_tasks(TASK_LIST, exclude_private=True, exclude_beta=True)
    return {task.metadata.name for task in listed}


def _stage(selected: Sequence[tuple[SavedResult, Path]], staging: Path, output: Path) -> None:
    """Copy mteb's files of the results into a folder of the repository's layout.

    Raises:
        DamagedError: mteb cannot read a result.
    """
    from mteb.results import TaskResult

    for result, place in selected:
        try:
            TaskResult.from_disk(result.path)
        except Exception as error:
            raise DamagedError(f"mteb cannot read {result.path}: {error}") from error
        staged = staging / place
        staged.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(result.path, staged)
        meta = result.path.with_name("model_meta.json")
        shutil.copy2(meta, staged.with_name(meta.name))
    for folder in {place.parent for _, place in selected}:
        sources = {result.path.parent for result, place in selected if place.parent == folder}
        tasks = {place.stem for _, place in selected if place.parent == folder}
        _write_settings(staging / folder, output / folder, sources, tasks)


def _put_in_place(staging: Path, output: Path) -> None:
    """Move every staged file to its place; files of the same path are replaced."""
    for staged in sorted(path for path in staging.rglob("*") if path.is_file()):
        target = output / staged.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(target)


def _remarks(exported: Sequence[SavedResult]) -> list[str]:
    """Return what the public repository's reviewers will ask about."""
    import mteb

    remarks = []
    if local := sorted({result.task for result in exported if _from_folder(result)}):
        remarks.append(
            f"Scored on data from a folder of yours: {', '.join(local)}. `bge-eval data check`"
            " compares it with mteb's own."
        )
    known = {str(meta.name) for meta in mteb.get_model_metas()}
    if unknown := sorted({result.model for result in exported} - known):
        remarks.append(
            f"mteb does not know {', '.join(unknown)}: the public repository asks for a model that"
            " mteb can load. Evaluate it under its hub id, and add it to mteb first."
        )
    return remarks


def model_index(results: Sequence[SavedResult]) -> str:
    """Return the ``model-index`` of a model card as YAML, made by mteb from its results.

    Args:
        results: the results of one model.

    Raises:
        UsageError: the results have several models or settings.
        MissingError: mteb has none of the tasks.
    """
    from huggingface_hub import ModelCardData
    from mteb.results import TaskResult

    if approximate := [result.label for result in results if is_approximate(result)]:
        raise UsageError(
            f"{approximate[0]} was searched by an index or over compressed vectors; a model card"
            " states exact scores. Choose another with --models."
        )
    labels = sorted({f"{result.label} at {result.path.parent.name[:8]}" for result in results})
    if len(labels) > 1:
        raise UsageError(
            f"A model card has one model, and these are {len(labels)}: {', '.join(labels)}."
            " Choose one with --models, or give its folder."
        )
    tasks = _mteb_tasks()
    exported = [result for result in results if result.task in tasks]
    if not exported:
        raise MissingError("None of the results is of a task that mteb knows.")
    with warnings.catch_warnings():
        # The hub has a newer format too; it still reads this one.
        warnings.filterwarnings("ignore", message="HF deprecated", category=DeprecationWarning)
        entries = [
            entry
            for result in sorted(exported, key=lambda result: result.task)
            for entry in TaskResult.from_disk(result.path).get_hf_eval_results()
        ]
    name = exported[0].model.rpartition("/")[2]
    return str(ModelCardData(model_name=name, eval_results=entries).to_yaml()) + "\n"


def is_approximate(result: SavedResult) -> bool:
    """Return whether an index searched that is not exact, or compressed vectors were searched."""
    return result.identity is not None and not result.identity.is_exact


def _from_folder(result: SavedResult) -> bool:
    layout = result.identity.layout if result.identity else ""
    return layout not in ("", "hub", "snapshot", "aggregate")


def _place(result: SavedResult) -> Path:
    """Return mteb's path of a result, relative to the repository's root."""
    parts = result.path.parent.parts
    start = -4 if result.experiment else -2
    return Path("results", *parts[start:], result.path.name)


def _write_settings(staged: Path, target: Path, sources: Iterable[Path], tasks: set[str]) -> None:
    """Write mteb's record of versions for the tasks exported now and before.

    Tasks that are not exported, such as private collections, are left out.
    """
    lines: list[str] = []
    for folder in (target, *sources):
        path = folder / _SETTINGS
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                task = json.loads(line)["task"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise DamagedError(f"{path} is no readable file of mteb's ({error}).") from error
            exported_now = task in tasks
            if exported_now is (folder != target) and line not in lines:
                lines.append(line)
    if lines:
        (staged / _SETTINGS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _refuse_duplicates(selected: Sequence[tuple[SavedResult, Path]]) -> None:
    seen: dict[Path, Path] = {}
    for result, place in selected:
        other = seen.setdefault(place, result.path)
        if other != result.path:
            raise UsageError(
                f"{other} and {result.path} would become the same file of the public repository."
                " Export one of their folders."
            )


def _check(folder: Path, count: int) -> None:
    """Load the folder with mteb, as the recipient of the submission does.

    Raises:
        DamagedError: mteb loads another number of results.
    """
    from mteb.cache import ResultCache

    loaded = ResultCache(folder).load_results(
        require_model_meta=True, include_remote=False, load_experiments="match_name"
    )
    readable = sum(len(model.task_results) for model in loaded.model_results)
    if readable != count:
        raise DamagedError(
            f"mteb reads {readable} of the {count} results to export; nothing was written. mteb"
            " skips results without model_meta.json beside them."
        )


def describe(report: Exported) -> list[str]:
    """Return the results left out of an export and its remarks, one line each."""
    lines = [f"Left out, {why}: {_some(names)}" for why, names in report.left_out.items()]
    return lines + report.remarks


def _some(names: Sequence[str], most: int = 4) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
