"""One task's scores, costs and per-query values, as the gate reads them from a saved result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.gate.rules import MAIN
from bge_eval.leaderboard.rows import Column
from bge_eval.measures.items import NOTES, item_values
from bge_eval.measures.measure import Measure, parse_measure
from bge_eval.measures.mteb_keys import MAIN_KEY, measure_of_key, mteb_key, stored_name
from bge_eval.measures.per_query import PER_QUERY, per_query
from bge_eval.measures.rescore import judge
from bge_eval.progress import Profile
from bge_eval.records import SplitKey
from bge_eval.results.record import Environment
from bge_eval.results.saved import TOLERANCE, SavedResult

PartValues = dict[str, dict[str, float]]
"""Part ("default/test"; of an aggregate "Task:default/test") → query id → value."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One task of a baseline or of a run."""

    task: str
    """mteb's task name."""
    model: str
    """The model's display name with its settings, e.g. ``org/model [dtype=bfloat16]``."""
    main: str
    """The main measure's name: "nDCG@10", or mteb's key if the measure has no name here."""
    scores: Mapping[str, float]
    """Measure ("main" among them) → score, 0 to 1."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """The run's identity; empty if it was not recorded."""
    queries: Mapping[str, PartValues] = field(default_factory=dict)
    """Measure (the main measure under its own name) → part → query id → value; of a task without
    queries, pair or text → its contribution to the main score."""
    seconds: float | None = None
    """Duration of the task; None if it was not recorded."""
    tokens: int = 0
    """Number of tokens encoded; embeddings read from the store are not counted."""
    memory_bytes: int | None = None
    """Peak memory of the process; None if it was not recorded."""
    machine: str = ""
    """Processor, cores and GPUs; run times are compared only on the same machine."""
    created: str = ""
    """Time of the run, ISO 8601."""
    source: str = ""
    """The path of the result; "" in a baseline."""
    aggregate_of: tuple[str, ...] = ()
    """For an aggregate, the tasks whose scores it averages."""
    doubt: str = ""
    """Why p-values of its values are too small, where they are mteb's repetitions or samples; "" in
    a baseline."""

    def name(self, measure: str) -> str:
        """Return a measure's display name; "main" becomes the main measure's name."""
        return self.main if measure == MAIN else measure

    def values(self, measure: str) -> PartValues:
        """Return a measure's per-query values; empty if they were not saved."""
        return self.queries.get(self.name(measure), {})


def entry_of(result: SavedResult, measures: Iterable[str] = ()) -> Entry:
    """Read an entry from a saved result.

    Args:
        result: the result.
        measures: measures to compute besides the saved ones, such as "MAP@100".

    Raises:
        DamagedError: a file cannot be read, or the main score is missing or not a number.
    """
    record = result.record
    parts = result.parts()
    ranks = any(each.keys for each in (result, *parts))
    main, wanted = _wanted_measures(record.main_measure, measures, ranks=ranks)
    scores = _scores(result, parts, wanted)
    values = _query_values([result, *parts], wanted)
    doubt = ""
    if not values:
        values, doubt = _item_values([result, *parts], main)
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
            if _agrees(by_part, name, main, scores)
        },
        seconds=sum(profile.seconds.values()) if profile.seconds else None,
        tokens=sum(profile.tokens.values()),
        memory_bytes=record.memory.peak_bytes,
        machine=_machine(record.environment),
        created=record.created,
        source=str(result.path),
        aggregate_of=record.aggregate_of,
        doubt=doubt,
    )


def mean_of(values: PartValues) -> float:
    """Return the mean over parts of the means over their queries."""
    means = [sum(part.values()) / len(part) for part in values.values()]
    return sum(means) / len(means)


def _agrees(values: PartValues, name: str, main: str, scores: Mapping[str, float]) -> bool:
    """Return whether a measure's scores are the mean of its values."""
    own = [scores[key] for key in (name, MAIN if name == main else name) if key in scores]
    return bool(own) and all(abs(mean_of(values) - score) <= TOLERANCE for score in own)


def _wanted_measures(
    main_key: str, measures: Iterable[str], *, ranks: bool
) -> tuple[str, dict[str, Measure]]:
    """Return the main measure's name, and the measures to read by their names in files.

    Args:
        main_key: the main measure's key in mteb's results.
        measures: the names of more measures.
        ranks: whether runs are saved, from which a measure that mteb lacks is computed.
    """
    main_measure = measure_of_key(main_key)
    if main_measure is None and ranks:  # such as RR(rel=2)
        with suppress(UsageError):
            main_measure = parse_measure(main_key)
    main = stored_name(main_measure) if main_measure else main_key or "main score"
    extra = [parse_measure(name) for name in measures if name != MAIN]
    # The main measure is not parsed again: some mteb tasks use cutoffs that the parser refuses.
    own = [] if main_measure is None else [main_measure]
    return main, {stored_name(measure): measure for measure in [*PER_QUERY, *extra, *own]}


def _scores(
    result: SavedResult, parts: Sequence[SavedResult], measures: Mapping[str, Measure]
) -> dict[str, float]:
    keys = {MAIN: MAIN_KEY, **{name: mteb_key(measure) for name, measure in measures.items()}}
    scores = {}
    for name, key in keys.items():
        value = _score(result, parts, key) if key else None
        if value is not None:
            scores[name] = value
    if MAIN not in scores:
        raise DamagedError(
            f"The main score in {result.path} is missing or not a number. Run {result.task} again"
            " with --overwrite."
        )
    return scores


def _score(result: SavedResult, parts: Sequence[SavedResult], key: str) -> float | None:
    """Return one score; an aggregate saves only its main score, others are means of its parts."""
    if key == MAIN_KEY or not parts:
        return Column(result.task).score(result.scores, key)
    scores = [_score(part, (), key) if part.path.is_file() else None for part in parts]
    present = [score for score in scores if score is not None]
    return sum(present) / len(present) if len(present) == len(scores) else None


def _query_values(
    results: Sequence[SavedResult], measures: Mapping[str, Measure]
) -> dict[str, PartValues]:
    """Return measure → part → query id → value, saved beside the results or computed anew."""
    values: dict[str, PartValues] = {}
    for index, result in enumerate(results):
        prefix = f"{result.task}:" if index else ""
        for part in result.keys:
            try:
                columns, rows = result.per_query(part)
                missing = {name: m for name, m in measures.items() if name not in columns}
                by_measure = _computed(result, part, missing)
            except MissingError:  # results of earlier versions have no run or qrels beside them
                continue
            if not rows:
                continue
            for place, name in enumerate(columns):
                if name in measures:
                    by_measure[name] = {query: row[place] for query, row in rows.items()}
            for name in measures:
                if by_measure[name].keys() == rows.keys():  # Accuracy leaves queries out
                    own = values.setdefault(name, {})
                    own[f"{prefix}{'/'.join(part)}"] = dict(by_measure[name])
    return values


def _computed(
    result: SavedResult, part: SplitKey, measures: Mapping[str, Measure]
) -> dict[str, Mapping[str, float]]:
    """Return measure → query → value, computed from a saved run and its judgements."""
    if not measures:
        return {}
    run, qrels = result.run(part), result.qrels(part)
    stored = {name: each for name, each in measures.items() if mteb_key(each)}
    others = {name: each for name, each in measures.items() if name not in stored}
    by_query = per_query(run, qrels, [*stored.values()])
    values: dict[str, Mapping[str, float]] = {
        name: {query: row[place] for query, row in by_query.items()}
        for place, name in enumerate(stored)
    }
    judged = judge(run, qrels, [*others.values()]) if others else {}
    return values | {name: judged[each].per_query for name, each in others.items()}


def _item_values(results: Sequence[SavedResult], main: str) -> tuple[dict[str, PartValues], str]:
    """Return what every pair or text contributes to the main score, and what makes them doubtful.

    The values are {} if a part has none.
    """
    values: PartValues = {}
    doubts: dict[str, None] = {}
    for index, result in enumerate(results):
        if not index and len(results) > 1:
            continue  # an aggregate has no items of its own
        items = item_values(result) if result.path.is_file() else None
        if items is None:
            return {}, ""
        if items.unit in NOTES:
            doubts[NOTES[items.unit]] = None
        prefix = f"{result.task}:" if index else ""
        values |= {f"{prefix}{'/'.join(part)}": each for part, each in items.values.items()}
    return {main: values}, "; ".join(doubts)


def _identity(result: SavedResult, parts: Sequence[SavedResult]) -> Mapping[str, Any]:
    """Return a run's identity; the data of an aggregate are a hash of its parts' data."""
    identity = result.identity.as_dict() if result.identity else {}
    if not parts or not all(part.path.is_file() for part in parts):
        return identity
    names = ("fingerprint", "splits", "subsets")
    stored = [(part.task, part.identity.data if part.identity else {}) for part in parts]
    data = [[task, *(values.get(name) for name in names)] for task, values in stored]
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
    return {**identity, "data": {"layout": "aggregate", "fingerprint": digest}}


def _machine(environment: Environment) -> str:
    if environment == Environment():
        return ""
    gpus = ", ".join(environment.gpus)
    cores = f"{environment.processor}, {environment.cores or '?'} cores"
    return f"{cores}, {gpus}" if gpus else cores
