"""The sides of a comparison: saved results, a TREC run of any tool, or published scores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bge_eval.errors import MissingError, UsageError, did_you_mean
from bge_eval.leaderboard.rows import Row
from bge_eval.leaderboard.trend import find_series
from bge_eval.results.identity import differences
from bge_eval.results.label import read_label
from bge_eval.results.saved import SavedResult, find_results

PUBLISHED = "published"
"""The argument for the published scores of the other side's model."""

_REVISION = re.compile(r"(?P<name>.+)@(?P<revision>[0-9a-z]{4,40})")
_RUN_ENDINGS = (".tsv", ".tsv.gz", ".trec", ".trec.gz", ".txt", ".txt.gz", ".run", ".run.gz")


@dataclass(frozen=True, slots=True)
class Side:
    """One system: its saved results, its run file or its published scores."""

    label: str
    """Its name for people."""
    results: Mapping[str, SavedResult] = field(default_factory=dict)
    """Task → saved result."""
    run_file: Path | None = None
    """A TREC run; None for the other kinds of sides."""
    published: str | None = None
    """The model with published scores, "" for the other side's model; None for other kinds."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Task → published score; empty until they are looked up."""

    @property
    def model(self) -> str:
        """Return the model's name, or ""."""
        return next((result.model for result in self.results.values()), "")

    @property
    def revision(self) -> str:
        """Return the model's revision, or ""."""
        return next((str(r.meta.get("revision", "")) for r in self.results.values()), "")


def find_side(text: str, runs: Sequence[Path]) -> Side:
    """Find the side that a command-line argument names.

    Args:
        text: "published" or "published:org/model"; a folder of results or one result; a TREC
            run; or a model's name, whole or in part, with ``@revision`` if there are several.
        runs: the folders of results to search for models.

    Raises:
        UsageError: several rows have the name.
        MissingError: there is no such file, folder or model.
    """
    if text == PUBLISHED or text.startswith(f"{PUBLISHED}:"):
        model = text.removeprefix(PUBLISHED).removeprefix(":")
        return Side(f"{model or PUBLISHED} (published)" if model else PUBLISHED, published=model)
    path = Path(text)
    if path.is_file():
        return _of_file(path)
    if path.is_dir() and any(path.rglob("model_meta.json")):
        rows = sides_in(path)
        if (path / "model_meta.json").is_file():  # a row's folder, without experiments
            rows = [row for row in rows if all(r.path.parent == path for r in row.results.values())]
        return _only(rows, text)
    return _by_name(text, runs)


def series_sides(text: str, runs: Sequence[Path]) -> list[Side]:
    """Return the checkpoints of one training, in the order of their steps.

    Args:
        text: a folder of results with the checkpoints of one training, or what the names of these
            checkpoints have in common (``checkpoints`` of ``checkpoints/checkpoint-500``).
        runs: the folders of results to search for such names.

    Returns:
        Two sides or more; none if there is no such training.

    Raises:
        UsageError: the folder has several trainings.
    """
    folder = Path(text)
    is_folder = folder.is_dir() and any(folder.rglob("model_meta.json"))
    places = [folder] if is_folder else [place for place in runs if place.exists()]
    sides = _rows(find_results(places)) if places else []
    series = find_series([_table_row(side) for side in sides])
    if not is_folder:
        wanted = text.removeprefix("./").strip("/").casefold()
        series = [each for each in series if each.name.casefold() == wanted]
    if len(series) > 1:
        names = ", ".join(each.name for each in series)
        raise UsageError(f"{text} has the checkpoints of several trainings: {names}. Name one.")
    return [sides[row] for each in series for row in each.rows]


def sides_in(folder: Path) -> list[Side]:
    """Return one side for every row in a folder of results.

    Raises:
        MissingError: the folder holds no results.
    """
    return _rows(find_results([folder]))


def distinguish(sides: Sequence[Side]) -> list[str]:
    """Return the sides' labels; equal ones get their path, revision or number."""
    labels = [side.label for side in sides]
    for detail in (_run_path, lambda side: side.revision[:8]):
        labels = [
            f"{label} ({detail(side)})" if labels.count(label) > 1 and detail(side) else label
            for label, side in zip(labels, sides, strict=True)
        ]
    return [
        label if labels.count(label) == 1 else f"{label} #{labels[: index + 1].count(label)}"
        for index, label in enumerate(labels)
    ]


def _run_path(side: Side) -> str:
    return str(side.run_file or "")


def _of_file(path: Path) -> Side:
    if path.suffix == ".json":
        result = SavedResult(path)
        return Side(result.label or path.stem, {result.task: result})
    if not path.name.endswith(_RUN_ENDINGS):
        raise UsageError(
            f"{path} is neither a result (.json) nor a TREC run ({', '.join(_RUN_ENDINGS)})."
        )
    name = path.name
    for ending in sorted(_RUN_ENDINGS, key=len, reverse=True):
        name = name.removesuffix(ending)
    return Side(name.removesuffix(".run"), run_file=path)


def _rows(paths: Sequence[Path]) -> list[Side]:
    """Group results as rows of the table: one folder for each model and its settings."""
    folders: dict[Path, dict[str, SavedResult]] = {}
    for path in paths:
        result = SavedResult(path)
        folders.setdefault(path.parent, {})[result.task] = result
    return [Side(next(iter(results.values())).label, results) for results in folders.values()]


def _table_row(side: Side) -> Row:
    """Return the side as a row without scores, as far as its name goes."""
    result = next(iter(side.results.values()))
    settings = ", ".join(f"{name}={value}" for name, value in sorted(result.experiment.items()))
    own = read_label(result.path.parent)
    return Row(result.model, side.revision, settings, None, "", title=own)


def _by_name(text: str, runs: Sequence[Path]) -> Side:
    folders = [folder for folder in runs if folder.exists()]
    if not folders:
        raise MissingError(
            f"'{text}' is no file or folder, and no results are in {', '.join(map(str, runs))} to"
            " search for a model of that name. Give another folder of results: --runs FOLDER."
        )
    rows = _rows(find_results(folders))
    revision = ""
    name = text
    if match := _REVISION.fullmatch(text):
        name, revision = match["name"], match["revision"]
    name = name.replace("builtin:", "builtin/").removeprefix("./").strip("/").casefold()
    rows = [row for row in rows if row.revision.startswith(revision)]
    by_label = [row for row in rows if row.label.casefold() == name]
    by_name = [row for row in rows if row.label.casefold().split("/")[-1] == name]
    by_model = [row for row in rows if row.model.casefold() == name]
    in_part = [row for row in rows if name in row.label.casefold()]
    matches = by_label or by_name or by_model or in_part
    if not matches:
        labels = sorted({row.label for row in _rows(find_results(folders))})
        shown = ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if labels[8:] else "")
        raise MissingError(
            f"'{text}' is no file or folder, and no result in {', '.join(map(str, folders))} has a"
            f" model of that name.{did_you_mean(text, labels)} Models there: {shown}."
        )
    return _only(matches, text)


def _only(rows: Sequence[Side], text: str) -> Side:
    if len(rows) == 1:
        return rows[0]
    shown = "\n".join(
        f"- {row.label}@{row.revision[:8]}: {next(iter(row.results.values())).path.parent}"
        for row in rows
    )
    raise UsageError(
        f"'{text}' matches {len(rows)} rows:\n{shown}\nGive a longer name, name@revision, or the"
        " folder."
    )


def differing(one: Side, two: Side, tasks: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the differences of the sides' saved identities, without those of the data.

    If the model differs, its settings are not compared.

    Returns:
        Name → both values, e.g. ``{"model.prompts.query": ("", "query: ")}``.
    """
    values: dict[str, tuple[str, str]] = {}
    for task in tasks:
        if task not in one.results or task not in two.results:
            continue
        first, second = one.results[task].identity, two.results[task].identity
        if not first or not second:
            continue
        names = differences(first.as_dict(), second.as_dict())
        sections = {"model", "search", "reranker", "packages"}
        if "model.name" in names:
            sections.remove("model")
        for name in names:
            if name.split(".")[0] in sections:
                values.setdefault(
                    name, (_value(first.as_dict(), name), _value(second.as_dict(), name))
                )
    return values


def _value(identity: Mapping[str, Any], name: str) -> str:
    value: Any = identity
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return "–" if value is None else str(value) if value != "" else "none"
