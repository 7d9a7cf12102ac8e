"""Costs of a model in saved results: seconds, rates, parameters and dimension.

A rate is of one kind of text, because a second encodes many more queries than documents: the same
model would be fast or slow by the task. Tokens per second also compare tasks whose texts differ in
length; texts per second compare models whose tokens differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bge_eval.leaderboard.rows import Row
from bge_eval.progress import Profile
from bge_eval.results.record import RunRecord
from bge_eval.results.saved import SavedResult

_WORK = ("tokenise", "encode", "search", "rerank")
"""Phases that count as costs; loading and measuring do not."""
_KINDS = {
    "encode queries": "queries",
    "encode corpus": "documents",
    "encode candidates": "documents",
    "encode": "texts",
}
"""Phase → the kind of text that it encodes; "texts" are those of tasks that search nothing."""

RATES = {
    "query tokens/s": "query_tokens_per_second",
    "document tokens/s": "document_tokens_per_second",
    "text tokens/s": "text_tokens_per_second",
    "queries/s": "queries_per_second",
    "documents/s": "documents_per_second",
    "texts/s": "texts_per_second",
}
"""Heading of a rate → its field of `Costs`: tokens first, then texts in the same order."""
SIZES = {"parameters": "parameters", "dimension": "dimension"}
"""Heading of a size → its field of `Costs`."""


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of one row of the table; None where the results do not record them."""

    seconds: float | None = None
    """Seconds of encoding, searching and reranking over all of its tasks; None if vectors came
    from the embedding store, because encoding was then skipped."""
    query_tokens_per_second: float | None = None
    """Tokens of queries encoded per second, tokenising included; stored vectors do not count."""
    document_tokens_per_second: float | None = None
    """Tokens of documents encoded per second."""
    text_tokens_per_second: float | None = None
    """Tokens per second of the texts of tasks that search nothing."""
    queries_per_second: float | None = None
    """Queries encoded per second; None if some of the vectors came from the store."""
    documents_per_second: float | None = None
    """Documents encoded per second; None if some of the vectors came from the store."""
    texts_per_second: float | None = None
    """Texts per second of tasks that search nothing; None if some came from the store."""
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
        **_rates(records),
        parameters=_one(_parameters(result) for result in of_row),
        dimension=_one(_dimension(result) for result in of_row),
        machine=machine,
    )


def with_sizes(known: Costs, row: Row) -> Costs:
    """Fill in the sizes that only a row's results of some subsets of a task state."""
    results = [SavedResult(part.result) for part in row.partial.values() if part.result]
    return replace(
        known,
        parameters=known.parameters or _one(map(_parameters, results)),
        dimension=known.dimension or _one(map(_dimension, results)),
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


@dataclass(slots=True)
class _Work:
    """Encoded texts of one kind, and the seconds that they took."""

    tokens: int = 0
    token_seconds: float = 0.0
    texts: int = 0
    text_seconds: float = 0.0


def _rates(records: Iterable[RunRecord]) -> dict[str, float]:
    """Return field of `Costs` → rate, for the kinds of text that were encoded."""
    work = {"queries": _Work(), "documents": _Work(), "texts": _Work()}
    for record in records:
        profile = record.profile or Profile()
        seconds = _encoding_seconds(profile)
        for phase, kind in _KINDS.items():
            if phase not in seconds:
                continue
            if tokens := profile.tokens.get(phase):
                work[kind].tokens += tokens
                work[kind].token_seconds += seconds[phase]
            # The records do not tell of which kind the stored vectors were.
            if profile.counts.get(phase) and not profile.counts.get("store"):
                work[kind].texts += profile.counts[phase]
                work[kind].text_seconds += seconds[phase]
    rates = {}
    names = {"queries": "query", "documents": "document", "texts": "text"}
    for kind, done in work.items():
        if done.token_seconds:
            rates[f"{names[kind]}_tokens_per_second"] = done.tokens / done.token_seconds
        if done.text_seconds:
            rates[f"{kind}_per_second"] = done.texts / done.text_seconds
    return rates


def _encoding_seconds(profile: Profile) -> Mapping[str, float]:
    """Return phase → seconds, each with its part of the tokenising.

    Tokenising is one phase for all kinds of text; its seconds are divided by tokens, or by texts
    where no tokens are recorded.
    """
    shares = {
        phase: profile.tokens.get(phase) or (0 if profile.tokens else profile.counts.get(phase, 0))
        for phase in _KINDS
        if phase in profile.seconds
    }
    whole = sum(shares.values())
    tokenising = profile.seconds.get("tokenise", 0.0)
    return {
        phase: profile.seconds[phase] + (tokenising * share / whole if whole else 0.0)
        for phase, share in shares.items()
    }


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
