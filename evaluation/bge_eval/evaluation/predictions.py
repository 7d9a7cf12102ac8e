"""The items of tasks that search nothing: mteb's predictions beside the gold values of the data.

mteb writes what a model predicted for every pair of STS and pair classification, and for every
text of classification, into a folder. Kept with the result, they let two models be compared item by
item; `bge_eval.measures.items` says what an item contributes to a score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bge_eval.records import SplitKey
from bge_eval.results.store import Items

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

_SIMILARITIES = {
    "similarity": "similarity_scores",
    "cosine": "cosine_scores",
    "manhattan": "manhattan_distances",
    "euclidean": "euclidean_distances",
    "dot": "dot_scores",
}
"""Prefix of mteb's measures → its key in mteb's predictions."""
_DISTANCES = ("manhattan", "euclidean")


def items_of(task: AbsTask, folder: Path) -> dict[SplitKey, Items]:
    """Return the items of an evaluated task by (subset, split).

    Args:
        task: a task without a search whose data are loaded.
        folder: where mteb wrote its predictions.

    Returns:
        The items; {} for task types whose items are not kept: their scores stay untested.
    """
    from mteb.abstasks import AbsTaskClassification, AbsTaskPairClassification, AbsTaskSTS

    kinds: list[tuple[Any, Any]] = [
        (AbsTaskSTS, _sts),
        (AbsTaskPairClassification, _pairs),
        (AbsTaskClassification, _texts),
    ]
    # Multilabel classification and regression derive from classification and predict other things.
    own = [read for kind, read in kinds if isinstance(task, kind) and _plain(task)]
    files = sorted(folder.glob("*.json"))
    if not own or len(files) != 1:
        return {}
    predictions = json.loads(files[0].read_text(encoding="utf-8"))
    main = str(task.metadata.main_score)
    items: dict[SplitKey, Items] = {}
    for subset, by_split in predictions.items():
        if subset == "mteb_model_meta":
            continue
        for split, predicted in by_split.items():
            read = own[0](task, _data(task, subset, split), predicted, main)
            if read is None:
                return {}
            items[subset, split] = read
    return items


def _plain(task: AbsTask) -> bool:
    from mteb.abstasks import AbsTaskMultilabelClassification, AbsTaskRegression

    other = isinstance(task, AbsTaskMultilabelClassification | AbsTaskRegression)
    return not other and not getattr(task, "is_cross_validation", False)


def _data(task: AbsTask, subset: str, split: str) -> Any:
    dataset: Any = task.dataset
    by_split = dataset if subset not in dataset and subset == "default" else dataset[subset]
    return by_split[split]


def _sts(task: Any, data: Any, predicted: Mapping[str, Any], main: str) -> Items | None:
    names = _names(main, predicted)
    gold = [float(score) for score in data["score"]]
    return _items("pairs", gold, names[:1], predicted)


def _pairs(task: Any, data: Any, predicted: Mapping[str, Any], main: str) -> Items | None:
    # Data sets of mteb's first version hold all pairs in one row.
    row = data[0] if len(data) == 1 else data
    gold = [float(label) for label in row[task.label_column_name]]
    return _items("pairs", gold, _names(main, predicted), predicted)


def _texts(task: Any, data: Any, predicted: Sequence[Sequence[Any]], main: str) -> Items | None:
    labels = list(data[task.label_column_name])
    number = {label: float(place) for place, label in enumerate(sorted(set(labels), key=str))}
    for experiment in predicted:  # a label of the training data that no test text has
        for label in experiment:
            number.setdefault(label, float(len(number)))
    if any(len(experiment) != len(labels) for experiment in predicted):
        return None
    columns = [labels, *predicted]
    rows = {
        str(place): [number[label] for label in row]
        for place, row in enumerate(zip(*columns, strict=True))
    }
    names = [f"prediction {place}" for place in range(1, len(predicted) + 1)]
    return Items("texts", ("gold", *names), rows)


def _names(main: str, predicted: Mapping[str, Any]) -> list[str]:
    """Return the similarities that a main measure is computed from; all of them for a maximum."""
    prefix = main.rpartition("_")[0] or "similarity"
    names = list(_SIMILARITIES) if prefix == "max" else [prefix]
    return [name for name in names if predicted.get(_SIMILARITIES.get(name, "")) is not None]


def _items(
    kind: str, gold: Sequence[float], names: Sequence[str], predicted: Mapping[str, Any]
) -> Items | None:
    columns = []
    for name in names:
        sign = -1.0 if name in _DISTANCES else 1.0
        values = cast("Sequence[float]", predicted[_SIMILARITIES[name]])
        columns.append([sign * float(value) for value in values])
    if not columns or any(len(column) != len(gold) for column in columns):
        return None
    rows = {str(place): list(row) for place, row in enumerate(zip(gold, *columns, strict=True))}
    return Items(kind, ("gold", *names), rows)
