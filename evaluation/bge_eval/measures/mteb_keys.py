"""The border to mteb: keys of its score dictionaries, translated to measures and back."""

from __future__ import annotations

import re

from bge_eval.errors import UsageError
from bge_eval.measures.measure import Measure, parse_measure
from bge_eval.measures.registry import DEFINITIONS, definition

MAIN_KEY = "main_score"
"""mteb's key for a task's own main score."""
CUTOFFS = (1, 3, 5, 10, 20, 100, 1000)
"""The cutoffs that mteb computes for every retrieval task."""

_STORED = [entry for entry in DEFINITIONS if entry.mteb_key]


def mteb_key(measure: Measure) -> str | None:
    """Return a measure's key in mteb's score dictionary, or None if mteb does not compute it."""
    entry = definition(measure.name)
    if entry is None or not entry.mteb_key or measure.cutoff is None or measure.parameters:
        return None
    return entry.mteb_key.format(measure.cutoff)


def measure_of_key(key: str) -> Measure | None:
    """Return the measure of one of mteb's keys, or None for keys of other kinds."""
    for entry in _STORED:
        if match := re.fullmatch(entry.mteb_key.format(r"(\d+)"), key):
            return Measure(entry.name, int(match[1]))
    return None


def stored_name(measure: Measure) -> str:
    """Return a measure's name in baselines and rules, which write MAP for ir_measures' AP."""
    entry = definition(measure.name)
    if entry is None or not entry.stored_name or measure.parameters:
        return str(measure)
    return str(Measure(entry.stored_name, measure.cutoff))


def parse_key(text: str) -> str:
    """Parse a measure that mteb's results hold, and return its key in them.

    Raises:
        UsageError: as `parse_measure`, or results do not hold the measure or its cutoff.
    """
    measure = parse_measure(text)
    key = mteb_key(measure)
    if key is None:
        names = ", ".join(entry.name for entry in _STORED)
        raise UsageError(
            f"Results do not hold '{text}'. They hold {names} with a cutoff, such as nDCG@10 or"
            " R@100; `bge-eval rescore` computes other measures from saved runs."
        )
    if measure.cutoff not in CUTOFFS:
        raise UsageError(
            f"'{text}': results hold the cutoffs {', '.join(map(str, CUTOFFS))}, not"
            f" {measure.cutoff}; `bge-eval rescore` computes others from saved runs."
        )
    return key
