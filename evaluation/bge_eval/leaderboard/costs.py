"""Costs of a model in saved results: seconds, texts per second, parameters and dimension."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bge_eval.progress import Profile
from bge_eval.results.record import RunRecord
from bge_eval.results.saved import SavedResult

_WORK = ("tokenise", "encode", "search", "rerank")
"""Phases that count as costs; loading and measuring do not."""


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of one row of the table; None where the results do not record them."""

    seconds: float | None = None
    """Seconds of encoding, searching and reranking over all of its tasks; None if vectors came
    from the embedding store, because encoding was then skipped."""
    texts_per_second: float | None = None
    """Texts encoded per second, queries and documents together."""
    parameters: int | None = None
    """Number of the encoder's weights."""
    dimension: int | None = None
    """Length of a vector."""
    machine: str = ""
    """Machine that the seconds were measured on, e.g. "NVIDIA L4"; "" if several or unknown."""


def costs(results: Iterable[SavedResult], first_stage: Costs | None = None) -> Costs:
    """Sum up the costs in the records of one row's results.

    Args:
        results: the results of one row.
        first_stage: the costs of the row's first stage, if the row is a second stage; its
            seconds are added, its parameters and dimension are taken over.
    """
    of_row = list(results)
    records = [result.record for result in of_row]
    seconds = [_seconds(record) for record in records if not record.aggregate_of]
    recorded = [value for value in seconds if value is not None]
    total = sum(recorded) if recorded and len(recorded) == len(seconds) else None
    machines = {_machine(record) for record in records}
    machine = machines.pop() if len(machines) == 1 else ""
    if first_stage is not None:
        complete = total is not None and first_stage.seconds is not None
        return Costs(
            seconds=(total or 0) + (first_stage.seconds or 0) if complete else None,
            parameters=first_stage.parameters,
            dimension=first_stage.dimension,
            machine=machine,
        )
    return Costs(
        seconds=total,
        texts_per_second=_rate(records),
        parameters=_one(_parameters(result) for result in of_row),
        dimension=_one(_dimension(result) for result in of_row),
        machine=machine,
    )


def size_name(parameters: int) -> str:
    """Return a number of weights with its unit, e.g. ``109M``."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if parameters >= unit:
            value = parameters / unit
            return f"{value:.1f}{name}" if value < 10 else f"{value:.0f}{name}"
    return str(parameters)


def _seconds(record: RunRecord) -> float | None:
    profile = record.profile or Profile()
    if profile.counts.get("store"):
        return None
    work = [value for name, value in profile.seconds.items() if name.startswith(_WORK)]
    return float(sum(work)) if work else None


def _rate(records: Iterable[RunRecord]) -> float | None:
    """Return texts per second over the phases with counts, without stored vectors."""
    texts, seconds = 0.0, 0.0
    for record in records:
        profile = record.profile or Profile()
        counts = profile.counts
        stored = counts.get("store", 0)
        if stored and stored >= sum(counts[name] for name in counts if name.startswith("encode")):
            continue
        texts -= stored
        for name, value in profile.seconds.items():
            if name.startswith("encode") and counts.get(name):
                texts += counts[name]
                seconds += value
            elif name == "tokenise":
                seconds += value
    return texts / seconds if seconds else None


def _machine(record: RunRecord) -> str:
    gpus = record.environment.gpus
    if record.device.startswith("cuda") and gpus:
        return gpus[0] if len(gpus) == 1 else f"{len(gpus)} × {gpus[0]}"
    processor, cores = record.environment.processor, record.environment.cores
    return f"{processor}, {cores} cores" if processor and cores else processor


def _parameters(result: SavedResult) -> int | None:
    return result.record.parameters or result.meta.get("n_parameters")


def _dimension(result: SavedResult) -> int | None:
    return result.record.dimension or result.meta.get("embed_dim")


def _one(values: Iterable[int | None]) -> int | None:
    """Return the one value that the results record; None if they record several or none."""
    recorded = {value for value in values if value}
    return recorded.pop() if len(recorded) == 1 else None
