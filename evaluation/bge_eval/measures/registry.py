"""Every measure that has more than ir_measures' own definition, one entry for each.

To register a measure, add an entry with its source to `DEFINITIONS`. A measure that ir_measures
computes needs an entry only if mteb's results hold it; one that ir_measures lacks needs a function
(see `bge_eval.measures.beir`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from bge_eval.measures.beir import accuracy, capped_recall, hole
from bge_eval.measures.values import Values
from bge_eval.records import Qrels, Run

Function: TypeAlias = Callable[[Run, Qrels, int], Values]
"""Computes a measure from a run without ties, the qrels and a cutoff."""


@dataclass(frozen=True, slots=True)
class Definition:
    """How a measure is called and who computes it."""

    name: str
    """The name in a measure's text, e.g. "nDCG"."""
    source: str
    """The publication that defines the measure."""
    aliases: tuple[str, ...] = ()
    """Other spellings, in lower case."""
    mteb_key: str = ""
    """mteb's key with {} for the cutoff, e.g. "ndcg_at_{}"; "" if mteb's results do not hold it."""
    pytrec_eval: str = ""
    """pytrec_eval's name of the measure with cutoffs; "" if it has none."""
    stored_name: str = ""
    """The name in baselines and rules, where it differs from ``name``."""
    compute: Function | None = None
    """The function that computes it; None for ir_measures."""


DEFINITIONS = (
    Definition(
        "nDCG",
        "Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002",
        mteb_key="ndcg_at_{}",
        pytrec_eval="ndcg_cut",
    ),
    Definition(
        "RR",
        "Kantor and Voorhees, The TREC-5 confusion track, Information Retrieval 2000",
        aliases=("mrr",),
        mteb_key="mrr_at_{}",
    ),
    Definition(
        "R",
        "van Rijsbergen, Information Retrieval, 2nd edition, 1979, chapter 7",
        aliases=("recall",),
        mteb_key="recall_at_{}",
        pytrec_eval="recall",
    ),
    Definition(
        "AP",
        "Harman, Evaluation issues in information retrieval, IPM 1992",
        aliases=("map",),
        mteb_key="map_at_{}",
        pytrec_eval="map_cut",
        stored_name="MAP",
    ),
    Definition(
        "P",
        "van Rijsbergen, Information Retrieval, 2nd edition, 1979, chapter 7",
        aliases=("precision",),
        mteb_key="precision_at_{}",
        pytrec_eval="P",
    ),
    Definition(
        "Success",
        "Craswell and Hawking, Overview of the TREC-2004 web track, TREC 2004",
        aliases=("hit_rate",),
        mteb_key="hit_rate_at_{}",
        pytrec_eval="success",
    ),
    Definition(
        "R_cap",
        "Thakur et al., BEIR: a heterogeneous benchmark for zero-shot evaluation, NeurIPS 2021",
        aliases=("beir:r_cap",),
        compute=capped_recall,
    ),
    Definition(
        "Hole",
        "Xiong et al., Approximate nearest neighbor negative contrastive learning, ICLR 2021",
        aliases=("beir:hole",),
        compute=hole,
    ),
    Definition(
        # "Accuracy" alone is another measure, of ir_measures.
        "beir:Accuracy",
        "Thakur et al., BEIR: a heterogeneous benchmark for zero-shot evaluation, NeurIPS 2021",
        compute=accuracy,
    ),
)
"""The registered measures."""

_BY_SPELLING = {
    spelling: entry for entry in DEFINITIONS for spelling in (entry.name.casefold(), *entry.aliases)
}


def definition(name: str) -> Definition | None:
    """Return the entry of a name or alias, whatever its letter case; None if there is none."""
    return _BY_SPELLING.get(name.casefold())
