"""One value for a measure: its text is what ir_measures writes, such as ``nDCG@10``.

The same text is used in Python, on the command line, in tables and beside saved runs. mteb's keys
(``ndcg_at_10``) are translated in `bge_eval.measures.mteb_keys`, and nowhere else.

`Measure` is a type of ours because importing ir_measures takes 0.15 s, as long as a small table.
ir_measures is imported only to compute, and to parse a measure that
`bge_eval.measures.registry` does not list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bge_eval.errors import UsageError, did_you_mean
from bge_eval.measures.expression import ir_measure
from bge_eval.measures.registry import DEFINITIONS, definition

EXAMPLES = ("nDCG@10", "RR@10", "R@100", "AP(rel=2)", "P@5", "Success@5", "Judged@10", "R_cap@100")
"""Names that an error message shows."""

_PLAIN = re.compile(r"(?P<name>(?:beir:)?[A-Za-z_]+)@(?P<cutoff>\d+)")
_MTEB_KEY = re.compile(r"(?P<key>[A-Za-z_]+)_at_(?P<cutoff>\d+)")
_BETWEEN_NAMES = re.compile(r"\s+(?![^(]*\))")


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure, equal to every other of the same text."""

    name: str
    """The measure without cutoff: "nDCG", "RR", "AP", "R_cap", "beir:Accuracy"."""
    cutoff: int | None = None
    """Number of top-ranked documents that count; None for all."""
    parameters: str = ""
    """ir_measures' other parameters, e.g. "rel=2"; "" for none."""

    def __str__(self) -> str:
        """Return the text that ir_measures gives the measure, e.g. ``AP(rel=2)@10``."""
        parameters = f"({self.parameters})" if self.parameters else ""
        cutoff = "" if self.cutoff is None else f"@{self.cutoff}"
        return f"{self.name}{parameters}{cutoff}"


def parse_measures(texts: Iterable[str]) -> list[Measure]:
    """Parse measures, each once; one text may hold several, separated by spaces.

    Raises:
        UsageError: as `parse_measure`.
    """
    names = [name for text in texts for name in _BETWEEN_NAMES.split(text.strip()) if name]
    return list(dict.fromkeys(map(parse_measure, names)))


def parse_measure(text: str) -> Measure:
    """Parse a measure as ir_measures writes it; letter case does not matter.

    Args:
        text: a registered name or alias with a cutoff (``nDCG@10``, ``map@100``, ``R_cap@5``), any
            measure of ir_measures (``AP(rel=2)``, ``Rprec``), or a key of mteb's (``ndcg_at_10``).

    Raises:
        UsageError: the measure is unknown, a parameter is wrong, or no installed tool computes it.
    """
    match = _PLAIN.fullmatch(_from_mteb(text.strip()))
    entry = definition(match["name"]) if match else None
    if match is None or entry is None:
        return _parsed_by_ir_measures(text.strip())
    return Measure(entry.name, _valid_cutoff(text, int(match["cutoff"])))


def _from_mteb(text: str) -> str:
    """Return one of mteb's keys in the spelling of measures; other texts as they are."""
    match = _MTEB_KEY.fullmatch(text)
    if match is None:
        return text
    key = f"{match['key'].casefold()}_at_{{}}"
    names = [entry.name for entry in DEFINITIONS if entry.mteb_key == key]
    return f"{names[0]}@{match['cutoff']}" if names else text


def _parsed_by_ir_measures(text: str) -> Measure:
    import ir_measures as untyped

    ir_measures: Any = untyped
    names = {name.casefold(): name for name in ir_measures.measures.registry}
    spelled = re.sub(r"^\w+", lambda name: names.get(name[0].casefold(), name[0]), text)
    try:
        measure = ir_measure(spelled)
        measure.validate_params()
    except AssertionError as error:
        raise UsageError(
            f"'{text}' has a wrong parameter, or lacks one that it needs, such as a cutoff (@10)."
            f" Write measures as ir_measures does, such as {', '.join(EXAMPLES)}."
        ) from error
    except (ValueError, NameError, KeyError, TypeError, SyntaxError) as error:
        raise UsageError(
            f"'{text}' is not a measure.{did_you_mean(text, [*EXAMPLES, *names.values()])} Write"
            f" measures as ir_measures does, such as {', '.join(EXAMPLES)}."
        ) from error
    try:
        computed = ir_measures.DefaultPipeline.supports(measure)
    except (ValueError, AssertionError):
        computed = False
    if not computed:
        raise UsageError(
            f"'{text}': none of ir_measures' tools that are installed computes it."
            f"{_tools(measure)} pytrec_eval, which is always installed, computes nDCG, AP, R, P,"
            " RR, Success, Rprec, Bpref and infAP."
        )
    return _from_ir_measures(text, measure)


def _tools(measure: Any) -> str:
    """Return a sentence that names tools that would compute a measure; "" without one.

    A tool may need other values of some parameters, such as RBP's ``rel``, which are named then.
    """
    import ir_measures as untyped

    ir_measures: Any = untyped
    tools = []
    for provider in ir_measures.DefaultPipeline.providers:
        # A tool may list a measure twice, with different parameters.
        wanting = [
            [name for name, spec in each.params.items() if not spec.validate(measure[name])]
            for each in provider.SUPPORTED_MEASURES
            if each.NAME == measure.NAME
        ]
        if wanting and not provider.is_available():
            other = min(wanting, key=len)
            what = f" with {' and '.join(other)} given otherwise" if other else ""
            name = provider.NAME.replace("_", "-")
            tools.append(f"{name} does{what} ({provider.install_instructions()})")
    return f" {' or '.join(tools)}." if tools else ""


def _from_ir_measures(text: str, measure: Any) -> Measure:
    """Return ir_measures' measure as ours, with the same text."""
    cutoff = measure.params.get("cutoff")
    whole = str(measure)
    if cutoff is not None:
        _valid_cutoff(text, cutoff)
        whole = whole.removesuffix(f"@{cutoff}")
    name, _, parameters = whole.partition("(")
    return Measure(name, cutoff, parameters.removesuffix(")"))


def _valid_cutoff(text: str, cutoff: int) -> int:
    if cutoff < 1:
        raise UsageError(f"'{text}': a cutoff is at least 1.")
    return cutoff
