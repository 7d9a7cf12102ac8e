"""Baselines: the expected results of one model, a small JSON file committed with the code.

::

    {
      "kind": "bge-eval baseline", "format": 1,
      "tasks": {
        "SciFact": {
          "model": "org/model", "main_measure": "nDCG@10",
          "scores": {"main": 0.64508, "nDCG@10": 0.64508, "R@100": 0.925},
          "identity": {…as in run.json…},
          "cost": {"seconds": 41.2, "memory_bytes": 1234567890, "machine": "…"},
          "queries": {"default/test": "H4sI…"}
        }
      }
    }

Keys are sorted, and every value that a reviewer reads has its own line. The per-query values of
a part are one string: a gzipped table in base64, shown by ``base64 -d | gunzip``.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError, StorageError
from bge_eval.gate.entry import Entry, PartValues, mean_of
from bge_eval.gate.rules import MAIN
from bge_eval.results.saved import TOLERANCE, read_json
from bge_eval.results.unpacked import unpack
from bge_eval.results.whole import whole_file

KIND = "bge-eval baseline"
"""Value of "kind" that marks a file as a baseline."""
FORMAT = 1
"""Version of the file format."""

_DIGITS = 8
"""Decimals of a score in the file; mteb saves five or six."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The expected results: one entry for each task."""

    name: str
    """The file's stem, or the model's display name if a run serves as the baseline."""
    path: Path
    """The baseline's file, or the path of the run."""
    entries: Mapping[str, Entry]
    """Task → its expected results."""


def read_baseline(path: Path) -> Baseline:
    """Read a baseline's file.

    Raises:
        DamagedError: the file is not a baseline, or has another format version.
    """
    content = read_json(path)
    if content.get("kind") != KIND:
        raise DamagedError(
            f"{path} is not a baseline. `bge-eval check --update --baseline {path}` writes one."
        )
    if content.get("format") != FORMAT:
        raise DamagedError(
            f"{path} has format version {content.get('format')}; this bge-eval reads {FORMAT}."
            f" Write it again with `bge-eval check --update --baseline {path}`."
        )
    try:
        entries = {task: _decode(task, item) for task, item in content["tasks"].items()}
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OSError,
        EOFError,
        zlib.error,
    ) as error:
        raise DamagedError(
            f"{path} is damaged ({type(error).__name__}: {error}). Restore it from version control."
        ) from error
    return Baseline(path.stem, path, entries)


def write_baseline(baseline: Baseline) -> None:
    """Write a baseline's file; equal content gives equal bytes.

    Raises:
        StorageError: the file cannot be written.
    """
    tasks = {task: _encode(entry) for task, entry in baseline.entries.items()}
    content = {"kind": KIND, "format": FORMAT, "tasks": tasks}
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    try:
        baseline.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(error, baseline.path) from error
    with whole_file(baseline.path) as file:
        file.write(text + "\n")


def _encode(entry: Entry) -> dict[str, Any]:
    parts = dict.fromkeys(part for values in entry.queries.values() for part in values)
    cost = {
        "seconds": None if entry.seconds is None else round(entry.seconds, 2),
        "tokens": entry.tokens,
        "memory_bytes": entry.memory_bytes,
        "machine": entry.machine,
    }
    return {
        "model": entry.model,
        "main_measure": entry.main,
        "scores": {name: round(value, _DIGITS) for name, value in entry.scores.items()},
        "identity": entry.identity,
        "cost": cost,
        "created": entry.created,
        "aggregate_of": list(entry.aggregate_of),
        "queries": {part: _encode_part(entry.queries, part) for part in parts},
    }


def _encode_part(queries: Mapping[str, PartValues], part: str) -> str:
    names = [name for name, values in queries.items() if part in values]
    table = [["query-id", *names]]
    table += [
        [query, *(f"{queries[name][part][query]:.9g}" for name in names)]
        for query in queries[names[0]][part]
    ]
    # Without a time stamp equal content gives equal bytes.
    packed = gzip.compress("\n".join(map("\t".join, table)).encode(), compresslevel=9, mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _refuse_disagreement(
    task: str, main: str, scores: Mapping[str, float], queries: Mapping[str, PartValues]
) -> None:
    """Refuse scores that are not the means of their queries: one of the two was edited.

    Raises:
        ValueError: the message names the measure and both figures.
    """
    for name, score in scores.items():
        values = queries.get(main if name == MAIN else name)
        if values and abs(mean_of(values) - score) > TOLERANCE + 10**-_DIGITS:
            shown = f"{main} (main)" if name == MAIN else name
            raise ValueError(
                f"{task}: {shown} is {score:.5f}, but the mean of its queries is"
                f" {mean_of(values):.5f}"
            )


def _decode(task: str, item: Mapping[str, Any]) -> Entry:
    queries: dict[str, PartValues] = {}
    for part, text in item["queries"].items():
        lines = unpack(base64.b64decode(text, validate=True)).decode().split("\n")
        names = lines[0].split("\t")[1:]
        for line in lines[1:]:
            query, *cells = line.split("\t")
            for name, cell in zip(names, cells, strict=True):
                queries.setdefault(name, {}).setdefault(part, {})[query] = float(cell)
    scores = {str(name): float(value) for name, value in item["scores"].items()}
    if MAIN not in scores or not all(map(math.isfinite, scores.values())):
        raise ValueError(f"a score of {task} is missing or not finite")
    _refuse_disagreement(task, item["main_measure"], scores, queries)
    cost = item["cost"]
    for kind, values in (
        (str, (item["model"], item["main_measure"], item["created"], cost["machine"])),
        (dict, (item["identity"], cost)),
        (int | float | None, (cost["seconds"], cost["tokens"], cost["memory_bytes"])),
    ):
        if wrong := [value for value in values if not isinstance(value, kind)]:
            raise TypeError(f"{task}: {wrong[0]!r} is of a wrong kind")
    return Entry(
        task=task,
        model=item["model"],
        main=item["main_measure"],
        scores=scores,
        identity=item["identity"],
        queries=queries,
        seconds=cost["seconds"],
        tokens=cost["tokens"],
        memory_bytes=cost["memory_bytes"],
        machine=cost["machine"],
        created=item["created"],
        aggregate_of=tuple(item["aggregate_of"]),
    )
