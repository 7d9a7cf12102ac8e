"""Groups of queries that several systems ran with the same qrels, and their values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bge_eval.errors import MissingError
from bge_eval.records import Qrels, SplitKey
from bge_eval.results.saved import SavedResult
from bge_eval.statistics.all_pairs import PairTest, compare_all_pairs
from bge_eval.statistics.samples import Values


@dataclass(frozen=True, slots=True)
class QueryGroup:
    """Queries of one part of a task that several systems ran with the same qrels."""

    task: str
    """mteb's task name."""
    part: SplitKey
    """(subset, split)."""
    label: str
    """Its display name, e.g. ``XQuADRetrieval · zh``."""
    measures: tuple[str, ...]
    """The measures stored for every query."""
    qrels: Qrels
    """The qrels that all of its systems were scored with."""
    results: dict[int, SavedResult]
    """Index of the system → its result."""
    values: dict[int, Values]
    """Index of the system → ``(n_measures, n_queries)``; NaN for a query without values."""

    @property
    def queries(self) -> list[str]:
        """Return the ids of the judged queries."""
        return list(self.qrels)

    @property
    def systems(self) -> list[int]:
        """Return the indices of the systems, in order."""
        return sorted(self.results)

    def tests(self, measure: int) -> list[PairTest]:
        """Compare every pair of systems by one measure, on the queries that all have.

        Args:
            measure: index of the measure.

        Returns:
            One test for each pair; the systems of a test are the leaderboard's indices.
        """
        systems = self.systems
        values = np.array([self.values[system][measure] for system in systems])
        shared = values[:, ~np.isnan(values).any(axis=0)]
        return [
            replace(test, first=systems[test.first], second=systems[test.second])
            for test in compare_all_pairs([shared])
        ]


def query_groups(task: str, results: Mapping[int, SavedResult]) -> list[QueryGroup]:
    """Group the queries of one task by part and qrels.

    Args:
        task: mteb's task name.
        results: index of the system → its result of the task.
    """
    groups: dict[tuple[SplitKey, str], QueryGroup] = {}
    for index, result in results.items():
        for part in result.keys:
            try:
                qrels = result.qrels(part)
                measures, values = result.per_query(part)
            except MissingError:
                continue  # an older result without qrels; a note on the page says so
            key = (part, _digest(qrels, measures))
            group = groups.get(key)
            if group is None:
                group = groups[key] = QueryGroup(task, part, "", tuple(measures), qrels, {}, {})
            group.results[index] = result
            missing = [np.nan] * len(measures)
            group.values[index] = np.array([values.get(q, missing) for q in group.qrels]).T
    return _labelled(list(groups.values()))


def _digest(qrels: Qrels, measures: Sequence[str]) -> str:
    """Return a hash of qrels and measures that does not depend on the order of the qrels."""
    canonical = json.dumps([qrels, list(measures)], sort_keys=True)
    return hashlib.sha256(canonical.encode("utf-8", "replace")).hexdigest()


def _labelled(groups: Sequence[QueryGroup]) -> list[QueryGroup]:
    """Give every group a label: the task, and subset and split where these differ."""
    subsets = {group.part[0] for group in groups}
    splits = {group.part[1] for group in groups}
    labelled = []
    seen: dict[SplitKey, int] = {}
    for group in groups:
        seen[group.part] = number = seen.get(group.part, 0) + 1
        words = [group.task]
        words += [group.part[0]] * (len(subsets) > 1 or group.part[0] != "default")
        words += [group.part[1]] * (len(splits) > 1)
        words += [f"other judgements {number}"] * (number > 1)
        labelled.append(replace(group, label=" · ".join(words)))
    return labelled
