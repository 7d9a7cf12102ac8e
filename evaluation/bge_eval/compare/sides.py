"""Who is compared: saved results, a TREC run of any tool, or published scores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bge_eval.errors import MissingError, UsageError, did_you_mean
from bge_eval.results.identity import differences
from bge_eval.results.saved import SavedResult, find_results

PUBLISHED = "published"
"""The name that stands for the published scores of the model on the other side."""

_REVISION = re.compile(r"(?P<name>.+)@(?P<revision>[0-9a-z]{4,40})")
_RUN_ENDINGS = (".tsv", ".tsv.gz", ".trec", ".trec.gz", ".txt", ".txt.gz", ".run", ".run.gz")


@dataclass(frozen=True, slots=True)
class Side:
    """One system, and what there is of it."""

    label: str
    """Its name for people."""
    results: Mapping[str, SavedResult] = field(default_factory=dict)
    """Task → saved result."""
    run_file: Path | None = None
    """A TREC run, in place of saved results."""
    published: str | None = None
    """The model whose published scores it is: "" for that of the other side; else None."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Task → published score, once they are looked up."""

    @property
    def model(self) -> str:
        """Return the model's name, or ""."""
        return next((result.model for result in self.results.values()), "")

    @property
    def revision(self) -> str:
        """Return the model's revision, or ""."""
        return next((str(r.meta.get("revision", "")) for r in self.results.values()), "")


def find_side(text: str, runs: Sequence[Path]) -> Side:
    """Find what a person names.

    Args:
        text: "published" or "published:org/model"; a folder of results or one result; a TREC
            run; or a model's name, whole or in part, with ``@revision`` where there are several.
        runs: the folders of results in which models' names are looked for.

    Raises:
        UsageError: several rows answer to the name.
        MissingError: nothing does.
    """
    if text == PUBLISHED or text.startswith(f"{PUBLISHED}:"):
        model = text.removeprefix(PUBLISHED).removeprefix(":")
        return Side(f"{model or PUBLISHED} (published)" if model else PUBLISHED, published=model)
    path = Path(text)
    if path.is_file():
        return _of_file(path)
    if path.is_dir() and any(path.rglob("model_meta.json")):
        rows = sides_in(path)
        if (path / "model_meta.json").is_file():  # a row's own folder, experiments below aside
            rows = [row for row in rows if all(r.path.parent == path for r in row.results.values())]
        return _only(rows, text)
    return _by_name(text, runs)


def sides_in(folder: Path) -> list[Side]:
    """Return every row of a folder of results.

    Raises:
        MissingError: the folder holds no results.
    """
    return _rows(find_results([folder]))


def distinguish(sides: Sequence[Side]) -> list[str]:
    """Return the sides' labels, with a revision or a number where two are the same."""
    labels = [side.label for side in sides]
    for more in (_place, lambda side: side.revision[:8]):
        labels = [
            f"{label} ({more(side)})" if labels.count(label) > 1 and more(side) else label
            for label, side in zip(labels, sides, strict=True)
        ]
    return [
        label if labels.count(label) == 1 else f"{label} #{labels[: index + 1].count(label)}"
        for index, label in enumerate(labels)
    ]


def _place(side: Side) -> str:
    return str(side.run_file or "")


def _of_file(path: Path) -> Side:
    if path.suffix == ".json":
        result = SavedResult(path)
        return Side(result.label or path.stem, {result.task: result})
    if not path.name.endswith(_RUN_ENDINGS):
        raise UsageError(
            f"{path} is neither a result (.json) nor a TREC run (its name would end in"
            f" {', '.join(_RUN_ENDINGS)})."
        )
    name = path.name
    for ending in sorted(_RUN_ENDINGS, key=len, reverse=True):
        name = name.removesuffix(ending)
    return Side(name.removesuffix(".run"), run_file=path)


def _rows(paths: Sequence[Path]) -> list[Side]:
    """Group results as the table's rows: a model with its settings has a folder of its own."""
    folders: dict[Path, dict[str, SavedResult]] = {}
    for path in paths:
        result = SavedResult(path)
        folders.setdefault(path.parent, {})[result.task] = result
    return [Side(next(iter(found.values())).label, found) for found in folders.values()]


def _by_name(text: str, runs: Sequence[Path]) -> Side:
    there = [folder for folder in runs if folder.exists()]
    if not there:
        raise MissingError(
            f"'{text}' is no file or folder, and there are no results in"
            f" {', '.join(map(str, runs))} to look for a model of that name. --runs FOLDER names"
            " another folder of results."
        )
    rows = _rows(find_results(there))
    revision = ""
    wanted = text
    if match := _REVISION.fullmatch(text):
        wanted, revision = match["name"], match["revision"]
    wanted = wanted.replace("builtin:", "builtin/").removeprefix("./").strip("/").casefold()
    rows = [row for row in rows if row.revision.startswith(revision)]
    by_label = [row for row in rows if row.label.casefold() == wanted]
    by_name = [row for row in rows if row.label.casefold().split("/")[-1] == wanted]
    by_model = [row for row in rows if row.model.casefold() == wanted]
    in_part = [row for row in rows if wanted in row.label.casefold()]
    found = by_label or by_name or by_model or in_part
    if not found:
        labels = sorted({row.label for row in _rows(find_results(there))})
        shown = ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if labels[8:] else "")
        raise MissingError(
            f"'{text}' is no file or folder, and no result in {', '.join(map(str, there))} has a"
            f" model of that name.{did_you_mean(text, labels)} Models there: {shown}."
        )
    return _only(found, text)


def _only(rows: Sequence[Side], text: str) -> Side:
    if len(rows) == 1:
        return rows[0]
    shown = "\n".join(
        f"- {row.label}@{row.revision[:8]}: {next(iter(row.results.values())).path.parent}"
        for row in rows
    )
    raise UsageError(
        f"'{text}' may be any of {len(rows)}:\n{shown}\nGive more of the name, name@revision, or"
        " the folder."
    )


def differing(one: Side, two: Side, tasks: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return what the sides' saved identities differ in, the data aside.

    Of two different models, what else differs between the models is not named.

    Returns:
        Name → both values, e.g. ``{"model.prompts.query": ("", "query: ")}``.
    """
    found: dict[str, tuple[str, str]] = {}
    for task in tasks:
        if task not in one.results or task not in two.results:
            continue
        ours, theirs = one.results[task].identity, two.results[task].identity
        if not ours or not theirs:
            continue
        names = differences(ours.as_dict(), theirs.as_dict())
        rooms = {"model", "search", "reranker", "packages"}
        if "model.name" in names:
            rooms.remove("model")
        for name in names:
            if name.split(".")[0] in rooms:
                found.setdefault(
                    name, (_value(ours.as_dict(), name), _value(theirs.as_dict(), name))
                )
    return found


def _value(identity: Mapping[str, Any], name: str) -> str:
    value: Any = identity
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return "–" if value is None else str(value) if value != "" else "none"
