"""Check that local data are the data of their task: by mteb's counts and the language's script.

A file that was cut at the end of a line, or pasted twice, can be read without an error; so can data
of another language in the right folder. Their scores would be wrong numbers under a known name.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from bge_eval.errors import DamagedError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

_SAMPLE = 0.01
"""Below this fraction of mteb's count, data are a deliberate sample and not a damaged copy."""
_TEXTS = 300
"""Number of texts of a split whose script is checked."""
_LEAST = 0.1
"""Smallest fraction of letters in the language's script; names and code use others."""

_SCRIPTS = {
    "Latn": {"LATIN"},
    "Hans": {"CJK"},
    "Hant": {"CJK"},
    "Jpan": {"CJK", "HIRAGANA", "KATAKANA"},
    "Hang": {"HANGUL"},
    "Cyrl": {"CYRILLIC"},
    "Arab": {"ARABIC"},
    "Hebr": {"HEBREW"},
    "Grek": {"GREEK"},
    "Thai": {"THAI"},
    "Deva": {"DEVANAGARI"},
    "Beng": {"BENGALI"},
}
"""ISO 15924 code → first words of the Unicode names of its letters."""


def counts(task: AbsTask) -> dict[str, int]:
    """Count what a task holds, e.g. ``{"test documents": 5183, "test queries": 300}``."""
    counted: dict[str, int] = {}
    for split, _, part in _parts(task):
        if isinstance(part, Mapping) and "corpus" in part:
            pairs = {"documents": len(part["corpus"]), "queries": len(part["queries"])}
        else:
            pairs = {"samples": _samples(task, part)}
        for what, number in pairs.items():
            name = f"{split} {what}"
            counted[name] = counted.get(name, 0) + number
    return counted


def _samples(task: AbsTask, rows: Any) -> int:
    """Count what mteb counts as samples: rows, or the texts in rows that are lists of texts.

    A row of an older clustering set is one experiment with all of its sentences.
    """
    from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy

    if not isinstance(task, AbsTaskClusteringLegacy) or not len(rows):
        return len(rows)
    name = task.input_column_name
    if not isinstance(rows[0][name], list):
        return len(rows)
    return sum(len(row[name]) for row in rows.select_columns([name]))


def expected_counts(task: AbsTask) -> dict[str, int]:
    """Return mteb's counts of exactly the subsets that are run; empty if it has none."""
    statistics: Any = task.metadata.descriptive_stats or {}
    expected: dict[str, int] = {}
    for split in task.eval_splits:
        whole = statistics.get(split, {})
        by_subset = whole.get("hf_subset_descriptive_stats", {})
        parts = [by_subset[s] for s in task.hf_subsets if s in by_subset] or [whole]
        for key in ("documents", "queries", "samples"):
            values = [part.get(f"num_{key}") for part in parts]
            if all(isinstance(value, int) for value in values):
                expected[f"{split} {key}"] = sum(values)
    return expected


def is_published_gap(task: AbsTask, subset: str, split: str, documents: int, missing: int) -> bool:
    """Tell whether mteb counts as many judged documents outside the corpus as a copy has.

    BEIR's ArguAna judges five documents that no copy of its corpus holds.

    Args:
        task: mteb's task.
        subset: mteb's subset.
        split: the split.
        documents: number of documents of the copy; with fewer than mteb's, it is another one.
        missing: number of judged documents that its corpus lacks.
    """
    statistics: Any = (task.metadata.descriptive_stats or {}).get(split, {})
    of_subset = statistics.get("hf_subset_descriptive_stats", {}).get(subset, statistics)
    judged = of_subset.get("relevant_docs_statistics") or {}
    return (
        missing > 0
        and of_subset.get("num_documents") == documents
        and judged.get("num_missing_corpus_ids") == missing
    )


def other_counts(task: AbsTask) -> list[str]:
    """Return one sentence for each count that differs from mteb's."""
    expected = expected_counts(task)
    return [
        f"{name}: {number:,} here, {expected[name]:,} as published."
        for name, number in counts(task).items()
        if name in expected and expected[name] != number
    ]


def is_sample(task: AbsTask) -> bool:
    """Tell whether the data are so few that they are plainly a sample."""
    expected = expected_counts(task)
    return any(
        number < _SAMPLE * expected[name]
        for name, number in counts(task).items()
        if name in expected
    )


def other_script(task: AbsTask) -> list[str]:
    """Return one sentence for each subset whose texts are not in its language's script."""
    problems = []
    languages = task.metadata.hf_subsets_to_langscripts
    for split, subset, part in _parts(task):
        codes = languages.get(subset, task.languages)
        scripts = [_SCRIPTS.get(code.partition("-")[2]) for code in codes]
        expected = set().union(*filter(None, scripts))
        letters = Counter(
            unicodedata.name(letter, "").partition(" ")[0]
            for text in islice(_texts(part), _TEXTS)
            for letter in text
            if letter.isalpha()
        )
        total = sum(letters.values())
        if None in scripts or not total:
            continue
        if sum(letters[script] for script in expected) < _LEAST * total:
            most = letters.most_common(1)[0][0].capitalize()
            where = f"subset {subset}, split {split}" if subset != "default" else f"split {split}"
            problems.append(
                f"{where}: expected text in {', '.join(codes)}, found mostly {most} letters."
            )
    return problems


def refuse_other_data(task: AbsTask, origin: str) -> list[str]:
    """Raise if data are not those of their task.

    Returns:
        One sentence for each count that differs, if the data are plainly a sample.

    Raises:
        DamagedError: their counts differ from mteb's, or they are in another script.
    """
    differing = other_counts(task)
    problems = [*other_script(task), *([] if is_sample(task) else differing)]
    if problems:
        raise DamagedError(
            f"{origin} has the name of {task.metadata.name}, but not its data."
            f" {' '.join(problems)} Download them again (`bge-eval data fetch`), or add"
            " --allow-other-data to run them nevertheless."
        )
    return differing


def _parts(task: AbsTask) -> Iterator[tuple[str, str, Any]]:
    """Yield (split, subset, data) of every scored part."""
    dataset: Any = task.dataset
    for split in task.eval_splits:
        for subset in task.hf_subsets:
            yield split, subset, dataset[subset][split] if subset in dataset else dataset[split]


def _texts(part: Any) -> Iterator[str]:
    """Yield the texts of a split: its queries, or every text of its rows."""
    table = part["queries"] if isinstance(part, Mapping) else part
    for row in table:
        yield from _strings(list(row.values()) if not isinstance(part, Mapping) else [row["text"]])


def _strings(values: list[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from _strings(value)
