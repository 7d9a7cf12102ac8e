"""What single pairs and texts contribute to a score that is no mean over queries.

A correlation or an average precision is no mean over pairs, but nearly linear in them: each pair
adds its influence, the derivative of the score in the pair's weight (the infinitesimal jackknife;
Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", SIAM 1982, chapter 6). Score plus
influence is the pair's contribution. Contributions have the score as their mean, exactly, and
resampling them resamples the score to first order. So the paired tests and intervals of queries
hold for pairs and texts too.

Classification: a text contributes the share of experiments that predict its label, and that is
exact. Clustering: V-measure has no values by text here; mteb's samples are paired instead, which
every model clusters alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.records import SplitKey
from bge_eval.results.saved import TOLERANCE, SavedResult

Array = npt.NDArray[np.float64]

EXPERIMENTS = "experiments"
"""Unit of mteb's repetitions of classification with other training samples."""
SAMPLES = "samples"
"""Unit of mteb's samples of texts in clustering."""
NOTES = {
    EXPERIMENTS: "its experiments have different training samples, but all the same test data",
    SAMPLES: "its samples are drawn from the same texts and share many of them",
}
"""Unit → how far its values can be trusted."""


@dataclass(frozen=True, slots=True)
class ItemValues:
    """The values of items of a task that searches nothing."""

    unit: str
    """The items: "pairs", "texts", `EXPERIMENTS` or `SAMPLES`."""
    values: Mapping[SplitKey, dict[str, float]]
    """(subset, split) → item → its contribution; their mean is the part's score."""


def item_values(result: SavedResult) -> ItemValues | None:
    """Return the contributions to a result's main score, saved or computed from what is saved.

    Returns:
        The values; None where nothing is saved that can be paired, or it does not give the score.
    """
    for read in (_by_item, _by_experiment, _by_sample):
        values = read(result)
        if values is not None and _give_the_score(values.values, result):
            return values
    return None


def contributions(gold: Array, columns: Sequence[Array], measure: str) -> Array | None:
    """Return what every pair or text contributes to a score.

    Args:
        gold: ``(n,)``, the gold scores, or labels (0 and 1 for pairs).
        columns: the model's values, ``(n,)`` each: similarities, or the predictions of experiments.
        measure: mteb's key of the score, e.g. "cosine_spearman", "max_ap", "accuracy".

    Returns:
        ``(n,)``, with the score as their mean; None for other measures.
    """
    prefix, _, name = measure.rpartition("_")
    function = (_PAIRS if prefix or name in ("spearman", "pearson") else _TEXTS).get(name)
    if function is None or not columns:
        return None
    every = [function(gold, column) for column in columns]
    if function in _TEXTS.values():
        return np.asarray(np.mean(every, axis=0))
    return max(every, key=lambda values: float(values.mean()))


def spearman(gold: Array, values: Array) -> Array:
    """Return the contributions to Spearman's correlation, ``(n,)``; equal values share ranks."""
    n = len(gold)
    u, v = _middle(gold) - 0.5, _middle(values) - 0.5
    covariance, du, dv = (u * v).mean(), (u * u).mean(), (v * v).mean()
    if du == 0 or dv == 0:
        return np.full(n, np.nan)
    correlation = covariance / np.sqrt(du * dv)

    def moved(ranks: Array, of: Array, by: Array) -> Array:
        """Return what an item adds to E[ranks · by] by the ranks that it changes."""
        return _mean_above(of, by) - float(((ranks + 0.5) * by).mean())

    numerator = u * v - covariance + moved(u, gold, v) + moved(v, values, u)
    first = u * u - du + 2 * moved(u, gold, u)
    second = v * v - dv + 2 * moved(v, values, v)
    influence = numerator / np.sqrt(du * dv) - correlation / 2 * (first / du + second / dv)
    return np.asarray(correlation + influence)


def pearson(gold: Array, values: Array) -> Array:
    """Return the contributions to Pearson's correlation, ``(n,)``."""
    if np.ptp(gold) == 0 or np.ptp(values) == 0:
        return np.full(len(gold), np.nan)
    x, y = ((each - each.mean()) / each.std() for each in (gold, values))
    correlation = float((x * y).mean())
    return np.asarray(correlation + x * y - correlation / 2 * (x * x + y * y))


def average_precision(gold: Array, values: Array) -> Array:
    """Return the contributions to average precision, ``(n,)``; equal values share a threshold."""
    positive, n = (gold == 1).astype(np.float64), len(gold)
    share = positive.mean()
    if share == 0:
        return np.full(n, np.nan)
    order = np.argsort(-values, kind="stable")
    last = np.searchsorted(-values[order], -values, side="right") - 1  # of the item's own value
    hits, seen = np.cumsum(positive[order])[last] / n, (last + 1) / n
    score = float((positive * hits / seen).mean() / share)
    # What an item adds at the thresholds of the values at most as high as its own.
    below = len(values) - np.searchsorted(np.sort(values), values, side="right")

    def at_most(weights: Array) -> Array:
        ascending = np.cumsum(weights[np.argsort(values, kind="stable")])
        return np.asarray(ascending[n - below - 1] / n)

    raises, lowers = at_most(positive / seen), at_most(positive * hits / seen**2)
    influence = positive * hits / seen - share * score + positive * raises - lowers
    return np.asarray(score + influence / share - (positive - share) / share * score)


def best_accuracy(gold: Array, values: Array) -> Array:
    """Return whether each pair is right at the threshold of most right pairs, ``(n,)``."""
    order = np.argsort(-values, kind="stable")
    positive = gold[order] == 1
    right = np.cumsum(positive) + (~positive).sum() - np.cumsum(~positive)
    ends = values[order][:-1] != values[order][1:]  # a threshold does not split equal values
    if not ends.any():
        return np.full(len(gold), np.nan)
    cut = int(np.flatnonzero(ends)[right[:-1][ends].argmax()])
    return np.asarray(((values >= values[order][cut]) == (gold == 1)).astype(np.float64))


def best_f1(gold: Array, values: Array) -> Array:
    """Return the contributions to F1 at its best threshold, ``(n,)``."""
    order = np.argsort(-values, kind="stable")
    hits, seen = np.cumsum(gold[order] == 1), np.arange(1, len(gold) + 1)
    ends = values[order][:-1] != values[order][1:]
    if not ends.any() or not hits[-1]:
        return np.full(len(gold), np.nan)
    scores = 2 * hits / (seen + hits[-1])
    cut = int(np.flatnonzero(ends)[scores[:-1][ends].argmax()])
    return _f1((gold == 1), values >= values[order][cut])


def accuracy(gold: Array, predicted: Array) -> Array:
    """Return whether each text has the predicted label, ``(n,)``."""
    return np.asarray((gold == predicted).astype(np.float64))


def macro_f1(gold: Array, predicted: Array) -> Array:
    """Return the contributions to the mean of F1 over the labels, ``(n,)``."""
    labels = np.union1d(gold, predicted)
    return np.asarray(np.mean([_f1(gold == x, predicted == x) for x in labels], axis=0))


_PAIRS: dict[str, Callable[[Array, Array], Array]] = {
    "spearman": spearman,
    "pearson": pearson,
    "ap": average_precision,
    "accuracy": best_accuracy,
    "f1": best_f1,
}
_TEXTS: dict[str, Callable[[Array, Array], Array]] = {"accuracy": accuracy, "f1": macro_f1}


def _f1(gold: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_]) -> Array:
    both, either = 2.0 * (gold & predicted), gold.astype(np.float64) + predicted
    score = both.mean() / either.mean()
    return np.asarray(score + (both - score * either) / either.mean())


def _middle(values: Array) -> Array:
    """Return every value's share of lower values, equal ones counted half, ``(n,)``."""
    ordered = np.sort(values)
    lower = np.searchsorted(ordered, values, side="left")
    return np.asarray((lower + np.searchsorted(ordered, values, side="right")) / 2 / len(values))


def _mean_above(values: Array, weights: Array) -> Array:
    """Return E[weight · 1{an item's value > own}], equal values counted half, for every item."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    sums = np.concatenate([[0.0], np.cumsum(weights[order])])
    lower = sums[np.searchsorted(ordered, values, side="left")]
    upper = sums[np.searchsorted(ordered, values, side="right")]
    return np.asarray((sums[-1] - (lower + upper) / 2) / len(values))


def _by_item(result: SavedResult) -> ItemValues | None:
    tables = result.items()
    values: dict[SplitKey, dict[str, float]] = {}
    for part, (_, rows) in tables.items():
        gold, *columns = np.array([*rows.values()], np.float64).T
        added = contributions(gold, columns, result.record.main_measure)
        if added is None or not np.isfinite(added).all():
            return None
        values[part] = dict(zip(rows, map(float, added), strict=True))
    return ItemValues(result.record.items[0].kind, values) if values else None


def _by_experiment(result: SavedResult) -> ItemValues | None:
    key, values = result.record.main_measure, {}
    for part, entry in _entries(result).items():
        repeated = entry.get("scores_per_experiment") or []
        values[part] = {
            f"experiment {number}": float(scores[key])
            for number, scores in enumerate(repeated, start=1)
            if isinstance(scores, dict) and isinstance(scores.get(key), int | float)
        }
    return ItemValues(EXPERIMENTS, values) if values and all(values.values()) else None


def _by_sample(result: SavedResult) -> ItemValues | None:
    values = {}
    for part, entry in _entries(result).items():
        stored = entry.get("v_measures") or {}
        levels = stored if isinstance(stored, dict) else {"set": stored}
        values[part] = {
            f"{level} {number}": float(value)
            for level, samples in levels.items()
            for number, value in enumerate(samples, start=1)
        }
    return ItemValues(SAMPLES, values) if values and all(values.values()) else None


def _entries(result: SavedResult) -> dict[SplitKey, Mapping[str, Any]]:
    return {
        (str(entry.get("hf_subset", "default")), split): entry
        for split, entries in result.scores.items()
        for entry in entries
    }


def _give_the_score(values: Mapping[SplitKey, Mapping[str, float]], result: SavedResult) -> bool:
    """Return whether the values' mean is mteb's main score, in every part."""
    entries = _entries(result)
    if set(values) != set(entries):
        return False
    for part, entry in entries.items():
        score = entry.get(MAIN_KEY)
        mean = sum(values[part].values()) / len(values[part])
        if not isinstance(score, int | float) or not abs(mean - score) <= TOLERANCE:
            return False
    return True
