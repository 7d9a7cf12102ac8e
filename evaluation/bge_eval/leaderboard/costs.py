"""What a model costs: seconds, texts a second, parameters and dimension, from saved results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bge_eval.progress import Profile
from bge_eval.results.record import RunRecord
from bge_eval.results.saved import SavedResult

_WORK = ("tokenise", "encode", "search", "rerank")
"""Phases that a model or its search takes; loading and measuring are not its cost."""


@dataclass(frozen=True, slots=True)
class Costs:
    """The cost of one row of the table. What no result says is None."""

    seconds: float | None = None
    """Seconds of encoding, searching and reranking over all of its tasks; None too where vectors
    came from the embedding store, since then they are not what the model takes."""
    texts_per_second: float | None = None
    """Texts encoded a second, queries and documents together."""
    parameters: int | None = None
    """Weights of the encoder."""
    dimension: int | None = None
    """Length of a vector."""
    machine: str = ""
    """Where the seconds were measured, e.g. "NVIDIA L4"; "" where it differs or is not known."""


def costs(results: Iterable[SavedResult], first_stage: Costs | None = None) -> Costs:
    """Sum up what the records of some results say.

    Args:
        results: the results of one row.
        first_stage: what the row's first stage costs, if the row is a second stage: its seconds
            are added, its size stands.
    """
    listed = list(results)
    records = [result.record for result in listed]
    seconds = [_seconds(record) for record in records if not record.aggregate_of]
    known = [value for value in seconds if value is not None]
    whole = sum(known) if known and len(known) == len(seconds) else None
    machines = {_machine(record) for record in records}
    machine = machines.pop() if len(machines) == 1 else ""
    if first_stage is not None:
        both = whole is not None and first_stage.seconds is not None
        return Costs(
            seconds=(whole or 0) + (first_stage.seconds or 0) if both else None,
            parameters=first_stage.parameters,
            dimension=first_stage.dimension,
            machine=machine,
        )
    return Costs(
        seconds=whole,
        texts_per_second=_rate(records),
        parameters=_one(_parameters(result) for result in listed),
        dimension=_one(_dimension(result) for result in listed),
        machine=machine,
    )


def size_name(parameters: int) -> str:
    """Return a number of weights as people say it, e.g. ``109M``."""
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
    """Return texts a second over the phases whose texts were counted, stored ones aside."""
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
    """Return the value that all agree on who know one."""
    known = {value for value in values if value}
    return known.pop() if len(known) == 1 else None
