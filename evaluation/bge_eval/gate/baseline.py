"""Baselines: the scores that runs are compared with, as one small JSON file kept with the code.

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

Keys are sorted and every value to review has its own line. The values of single queries are one
string for each part: base64 of a gzipped table; ``base64 -d | gunzip`` shows it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError, MissingError
from bge_eval.gate.rules import MAIN
from bge_eval.leaderboard.board import Column
from bge_eval.measures.measure import Measure, parse_measure
from bge_eval.measures.mteb_keys import MAIN_KEY, measure_of_key, mteb_key, stored_name
from bge_eval.measures.per_query import PER_QUERY, per_query
from bge_eval.progress import Profile
from bge_eval.results.record import Environment
from bge_eval.results.saved import TOLERANCE, SavedResult, read_json

KIND = "bge-eval baseline"
"""Value of "kind" in a baseline file."""
FORMAT = 1
"""Version of the file format."""

PartValues = dict[str, dict[str, float]]
"""Part ("default/test"; of an aggregate "Task:default/test") → query id → value."""

_DIGITS = 8
"""Decimals of a score in the file; mteb saves five or six."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The parts of a task's result that the gate compares; of a baseline or of a run."""

    task: str
    """mteb's task name."""
    model: str
    """The row's label, e.g. ``org/model [dtype=bfloat16]``."""
    main: str
    """The main measure's name: "nDCG@10", or mteb's key where it has no name of ours."""
    scores: Mapping[str, float]
    """Measure ("main" among them) → score."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """The run's identity; empty if it was not recorded."""
    queries: Mapping[str, PartValues] = field(default_factory=dict)
    """Measure (the main one under its own name) → part → query id → value."""
    seconds: float | None = None
    """Wall time of the task; None if unknown."""
    tokens: int = 0
    """Number of tokens encoded; stored embeddings do not count."""
    memory_bytes: int | None = None
    """Peak memory of the process; None if unknown."""
    machine: str = ""
    """Processor, cores and GPUs; times are compared only on the same machine."""
    created: str = ""
    """Time of the run."""
    source: str = ""
    """The run's result file; "" in a baseline."""
    aggregate_of: tuple[str, ...] = ()
    """For an aggregate, the tasks whose scores it averages."""

    def name(self, measure: str) -> str:
        """Return a measure's display name."""
        return self.main if measure == MAIN else measure

    def values(self, measure: str) -> PartValues:
        """Return part → query id → value of a measure; empty if it was not stored."""
        return self.queries.get(self.name(measure), {})


@dataclass(frozen=True, slots=True)
class Baseline:
    """The scores that runs are compared with."""

    name: str
    """The file's stem, or the run's model."""
    path: Path
    """The file, or the run's."""
    entries: Mapping[str, Entry]
    """Task → its result."""


def entry_of(result: SavedResult, measures: Iterable[str] = ()) -> Entry:
    """Read what the gate needs from a saved result.

    Args:
        result: the result.
        measures: more measures than the kept ones, such as "MAP@100".

    Raises:
        DamagedError: a file of it cannot be read, or the main score is no number.
    """
    record = result.record
    main_key = record.main_measure
    main_measure = measure_of_key(main_key)
    main = stored_name(main_measure) if main_measure else main_key or "main score"
    asked = [parse_measure(name) for name in measures if name != MAIN]
    # The task's own is not parsed again: mteb has tasks with other cutoffs than the usual ones.
    own = [] if main_measure is None else [main_measure]
    wanted = {stored_name(measure): measure for measure in [*PER_QUERY, *asked, *own]}
    parts = result.parts()
    scores = {}
    for name in (MAIN, *wanted):
        key = MAIN_KEY if name == MAIN else mteb_key(wanted[name])
        value = _score(result, parts, key) if key else None
        if value is not None:
            scores[name] = value
    if MAIN not in scores:
        raise DamagedError(
            f"{result.path} has no main score, or one that is no number. Run {result.task} again"
            " with --overwrite."
        )
    values = _query_values([result, *parts], wanted)
    profile = record.profile or Profile()
    return Entry(
        task=result.task,
        model=result.label,
        main=main,
        scores=scores,
        identity=_identity(result, parts),
        queries={
            name: by_part
            for name, by_part in values.items()
            if name in scores and abs(mean_of(by_part) - scores[name]) <= TOLERANCE
        },
        seconds=sum(profile.seconds.values()) if profile.seconds else None,
        tokens=sum(profile.tokens.values()),
        memory_bytes=record.memory.peak_bytes,
        machine=_machine(record.environment),
        created=record.created,
        source=str(result.path),
        aggregate_of=record.aggregate_of,
    )


def _identity(result: SavedResult, parts: Sequence[SavedResult]) -> Mapping[str, Any]:
    """Return a run's identity; an aggregate's data are its parts', whatever model ran on them."""
    identity = result.identity.as_dict() if result.identity else {}
    if not parts or not all(part.path.is_file() for part in parts):
        return identity
    named = ("fingerprint", "splits", "subsets")
    stored = [(part.task, part.identity.data if part.identity else {}) for part in parts]
    data = [[task, *(values.get(name) for name in named)] for task, values in stored]
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
    return {**identity, "data": {"layout": "aggregate", "fingerprint": digest}}


def mean_of(values: PartValues) -> float:
    """Return the mean over parts of the means over their queries."""
    means = [sum(part.values()) / len(part) for part in values.values()]
    return sum(means) / len(means)


def read_baseline(path: Path) -> Baseline:
    """Read a baseline's file.

    Raises:
        DamagedError: it is no baseline, or has another format version.
    """
    content = read_json(path)
    if content.get("kind") != KIND:
        raise DamagedError(
            f"{path} is no baseline. `bge-eval check --update --baseline {path}` writes one."
        )
    if content.get("format") != FORMAT:
        raise DamagedError(
            f"{path} has format {content.get('format')}, this bge-eval reads {FORMAT}. Write it"
            f" again with `bge-eval check --update --baseline {path}`."
        )
    try:
        entries = {task: _unpacked(task, item) for task, item in content["tasks"].items()}
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
            f"{path} is damaged ({type(error).__name__}: {error}). Take it from version control."
        ) from error
    return Baseline(path.stem, path, entries)


def write_baseline(baseline: Baseline) -> None:
    """Write a baseline's file; the same content gives the same bytes.

    Raises:
        MissingError: the file cannot be written.
    """
    tasks = {task: _packed(entry) for task, entry in baseline.entries.items()}
    content = {"kind": KIND, "format": FORMAT, "tasks": tasks}
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    staged = baseline.path.with_name(f".{baseline.path.name}.new")
    try:
        baseline.path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(text + "\n", encoding="utf-8")
        staged.replace(baseline.path)
    except OSError as error:
        raise MissingError(f"{baseline.path} cannot be written ({error.strerror}).") from error


def _score(result: SavedResult, parts: Sequence[SavedResult], key: str) -> float | None:
    """Return a measure; an aggregate keeps only its main score, others are its parts' mean."""
    if key == MAIN_KEY or not parts:
        return Column(result.task).score(result.scores, key)
    found = [_score(part, (), key) if part.path.is_file() else None for part in parts]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if len(known) == len(found) else None


def _query_values(
    results: Sequence[SavedResult], measures: Mapping[str, Measure]
) -> dict[str, PartValues]:
    """Return measure → part → query → value, from what stands beside the results."""
    values: dict[str, PartValues] = {}
    for index, result in enumerate(results):
        prefix = f"{result.task}:" if index else ""
        for part in result.keys:
            try:
                kept, rows = result.per_query(part)
                others = {name: m for name, m in measures.items() if name not in kept}
                if others:
                    more = per_query(result.run(part), result.qrels(part), [*others.values()])
                    kept = [*kept, *others]
                    rows = {query: [*row, *more[query]] for query, row in rows.items()}
            except MissingError:  # a result of an earlier version keeps less
                continue
            if not rows:
                continue
            for name in measures:
                column = kept.index(name)
                by_query = {query: row[column] for query, row in rows.items()}
                values.setdefault(name, {})[f"{prefix}{'/'.join(part)}"] = by_query
    return values


def _machine(environment: Environment) -> str:
    if environment == Environment():
        return ""
    gpus = ", ".join(environment.gpus)
    cores = f"{environment.processor}, {environment.cores or '?'} cores"
    return f"{cores}, {gpus}" if gpus else cores


def _packed(entry: Entry) -> dict[str, Any]:
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
        "queries": {part: _packed_part(entry.queries, part) for part in parts},
    }


def _packed_part(queries: Mapping[str, PartValues], part: str) -> str:
    names = [name for name, values in queries.items() if part in values]
    table = [["query-id", *names]]
    table += [
        [query, *(f"{queries[name][part][query]:.9g}" for name in names)]
        for query in queries[names[0]][part]
    ]
    # mtime=0: the same content gives the same bytes.
    packed = gzip.compress("\n".join(map("\t".join, table)).encode(), compresslevel=9, mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _unpacked(task: str, item: Mapping[str, Any]) -> Entry:
    queries: dict[str, PartValues] = {}
    for part, text in item["queries"].items():
        lines = gzip.decompress(base64.b64decode(text, validate=True)).decode().split("\n")
        names = lines[0].split("\t")[1:]
        for line in lines[1:]:
            query, *cells = line.split("\t")
            for name, cell in zip(names, cells, strict=True):
                queries.setdefault(name, {}).setdefault(part, {})[query] = float(cell)
    scores = {str(name): float(value) for name, value in item["scores"].items()}
    if MAIN not in scores or not all(map(math.isfinite, scores.values())):
        raise ValueError(f"scores of {task}")
    cost = item["cost"]
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
