"""What vectors cost as deployed: the curves of ``bge-eval curve --format json``, for the page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError, MissingError

_NAMES = {"nDCG@10": "ndcg", "recall@10": "recall_10", "recall@100": "recall_100"}
"""Names in the JSON that are no names of fields."""
_HOW = "Write one with: bge-eval curve … --format json > curve.json"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One setting: dimension, representation, index, rescoring."""

    dimension: int
    """Dimensions of the vectors."""
    vectors: str
    """The representation, e.g. ``int8``."""
    index: str
    """The index with its parameters, e.g. ``HNSW32 efSearch=64``."""
    rescored: int | None
    """How many documents are scored again with the full vectors."""
    ndcg: float
    """nDCG@10, the mean over tasks."""
    difference: float
    """nDCG@10 minus that of the exact search over the full vectors."""
    low: float | None
    """Lower end of the difference's 95% interval."""
    high: float | None
    """Upper end of it."""
    p_holm: float
    """p-value of the difference, corrected over the settings."""
    recall_10: float
    """Share of the exact search's first 10 documents."""
    recall_100: float
    """Share of its first 100."""
    bytes_per_document: float
    """Size of the index, by the documents."""
    build_seconds: float | None
    """Seconds of training and building; None where they are unknown."""
    front: bool
    """Whether no setting of at most its memory has a higher nDCG@10."""
    one_core_queries_per_second: float
    """Queries that are searched together, on one core."""
    one_core_p50_ms: float
    """Median latency of a query on one core, in milliseconds."""
    one_core_p95_ms: float
    """Latency that 95% of the queries keep on one core."""
    all_cores_threads: int
    """Threads of the figures on all cores."""
    all_cores_queries_per_second: float
    """Queries that are searched together, on all cores."""
    all_cores_p50_ms: float
    """Median latency on all cores."""
    all_cores_p95_ms: float
    """Latency that 95% of the queries keep on all cores."""

    @property
    def name(self) -> str:
        """Return the setting for people, e.g. ``int8, 256 dimensions, HNSW32 efSearch=64``."""
        rescored = f", {self.rescored} rescored" if self.rescored is not None else ""
        return f"{self.vectors}, {self.dimension} dimensions, {self.index}{rescored}"


@dataclass(frozen=True, slots=True)
class Curve:
    """One model's curve."""

    model: str
    """The model as it was named."""
    tasks: tuple[str, ...]
    """The tasks whose mean is shown."""
    points: tuple[CurvePoint, ...]
    """The exact search over the full vectors first."""
    smallest: str
    """A sentence about the smallest setting without a loss beyond chance; "" without one."""
    method: str
    """How the figures were measured."""

    @property
    def heading(self) -> str:
        """Return the model and its tasks."""
        tasks = ", ".join(self.tasks) if len(self.tasks) <= 3 else f"{len(self.tasks)} tasks"
        return f"{self.model} on {tasks}"


def read_curve(path: Path) -> Curve:
    """Read a curve from a file.

    Raises:
        MissingError: there is no such file.
        DamagedError: it is no curve; the message names what is wrong.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise MissingError(f"--curve {path} cannot be read ({error.strerror}). {_HOW}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"--curve {path} is not JSON. {_HOW}") from error
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise DamagedError(f"--curve {path} is no curve: it has no rows. {_HOW}")
    if not content["rows"]:
        raise DamagedError(f"--curve {path} has no row. {_HOW}")
    tasks = content.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise DamagedError(f"--curve {path} does not name its tasks. {_HOW}")
    return Curve(
        model=str(content.get("model", "")),
        tasks=tuple(tasks),
        points=tuple(
            _point(row, f"--curve {path}, row {number}")
            for number, row in enumerate(content["rows"], start=1)
        ),
        smallest=str(content.get("smallest_without_loss") or ""),
        method=str(content.get("method", "")),
    )


def _point(row: Any, place: str) -> CurvePoint:
    if not isinstance(row, Mapping):
        raise DamagedError(f"{place} is no object. {_HOW}")
    named = {_NAMES.get(name, name): value for name, value in row.items()}
    values: dict[str, Any] = {}
    for item in fields(CurvePoint):
        value = named.get(item.name)
        if not _fits(value, str(item.type)):
            raise DamagedError(
                f"{place}: {item.name} is {value!r}; expected {str(item.type).replace('|', 'or')}."
                f" {_HOW}"
            )
        values[item.name] = value
    return CurvePoint(**values)


def _fits(value: Any, kind: str) -> bool:
    """Return whether a JSON value is of a field's type."""
    if value is None:
        return "None" in kind
    if kind in ("str", "bool"):
        return type(value).__name__ == kind
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind.startswith("int"):
        return whole
    return whole or (isinstance(value, float) and math.isfinite(value))
