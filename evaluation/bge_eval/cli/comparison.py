"""Comparisons as tables, documents and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from bge_eval.cli.formats.blocks import (
    Block,
    Cell,
    Grid,
    GridLine,
    Item,
    Items,
    Output,
    Paragraph,
    Title,
)
from bge_eval.cli.formats.terminal import terminal_table
from bge_eval.compare.pairs import Difference, Pair, Verdict
from bge_eval.compare.queries import ChangedQuery, Document, changed_queries
from bge_eval.errors import MissingError
from bge_eval.statistics.intervals import CONFIDENCE
from bge_eval.statistics.paired import METHOD
from bge_eval.statistics.samples import RESAMPLES

_STYLES = {Verdict.BETTER: "green", Verdict.WORSE: "red"}
_WIDE = 126
"""Columns that the table needs to have every figure on one line."""
_NONE = "–"


@dataclass(frozen=True, slots=True)
class ComparisonOutput(Output):
    """Comparisons with the first side to print."""

    pairs: Sequence[Pair]
    """One for each other side."""
    seed: int
    """The seed of the draws, named in the output."""
    queries: int = 0
    """How many queries that gained, and lost, most are shown for each task."""

    def terminal(self, console: Console) -> None:
        """Print one table for each pair."""
        for pair in self.pairs:
            _terminal(pair, console, self.queries)
        if _tested(self.pairs):
            console.print(Text(_method(self.seed)), style="dim")

    def blocks(self) -> list[Block]:
        """Return the tables, their notes and queries, and the method."""
        blocks = [block for pair in self.pairs for block in _blocks(pair, self.queries)]
        return [*blocks, Paragraph(_method(self.seed))] if _tested(self.pairs) else blocks

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each line, or for each query that is shown."""
        if self.queries:
            return [one for pair in self.pairs for one in _query_records(pair, self.queries)]
        return [one for pair in self.pairs for one in _records(pair)]

    def content(self) -> dict[str, Any]:
        """Return every pair with its statistics, notes and queries."""
        return _content(self.pairs, self.seed, self.queries)


def _tested(pairs: Sequence[Pair]) -> bool:
    return any(line.statistics for pair in pairs for line in pair.tasks)


def _method(seed: int) -> str:
    return (
        f"{CONFIDENCE:.0%} {METHOD}; Holm 1979 over the tasks; d: Cohen's, of pairs;"
        f" {RESAMPLES:,} draws, seed {seed}."
    )


def _terminal(pair: Pair, console: Console, queries: int) -> None:
    console.print(Text(f"A  {pair.first}"))
    console.print(Text(f"B  {pair.second}"))
    lines = [*pair.tasks, *pair.means]
    wide = console.width >= _WIDE
    head = _HEAD if wide else ["task", "A\nB", "B - A\n95%", "p\nHolm", "d\n+/=/-", ""]
    body = [_cells(line) if wide else _narrow(line) for line in lines]
    table = terminal_table(
        head,
        body,
        left=(0, len(head) - 1),
        styles=[_STYLES.get(line.verdict, "") for line in lines],
    )
    table.title, table.title_justify = pair.measure, "left"
    console.print(table)
    for note in pair.notes:
        console.print(Text(note), style="yellow")
    for title, part, changed in _changed(pair, queries):
        console.print(Text(f"\n{title}: {part}"), style="bold")
        for one in changed:
            for line in _query_lines(one):
                console.print(Text(line))
    console.print()


_HEAD = ["task", "A", "B", "B - A", "95% interval", "p", "p (Holm)", "d", "+ / = / -", ""]


def _cells(line: Difference) -> list[str]:
    title = f"{line.title} ({line.unit})" if line.unit not in ("", "queries") else line.title
    statistics = line.statistics
    scores = [f"{line.before:.5f}", f"{line.after:.5f}", f"{line.difference:+.5f}"]
    if statistics is None:
        return [title, *scores, *[_NONE] * 5, str(line.verdict)]
    interval = statistics.interval
    return [
        title,
        *scores,
        f"{interval.low:+.5f} … {interval.high:+.5f}" if interval else _NONE,
        _p(statistics.p_value),
        _p(line.corrected),
        _NONE if statistics.effect_size is None else f"{statistics.effect_size:+.2f}",
        f"{statistics.wins} / {statistics.ties} / {statistics.losses}",
        str(line.verdict),
    ]


def _narrow(line: Difference) -> list[str]:
    """Return the same figures in cells of two lines."""
    title, before, after, difference, interval, p, holm, d, counts, verdict = _cells(line)
    return [
        title,
        f"{before}\n{after}",
        f"{difference}\n{interval.replace(' … ', '…')}",
        f"{p}\n{holm}",
        f"{d}\n{counts.replace(' ', '')}",
        verdict,
    ]


def _p(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}"


def _blocks(pair: Pair, queries: int) -> list[Block]:
    """Return a pair as a document."""
    lines = [GridLine(tuple(map(Cell, _cells(line)))) for line in [*pair.tasks, *pair.means]]
    head = (*_HEAD[:-1], "B is")
    blocks: list[Block] = [
        Grid(
            head,
            tuple(lines),
            left=(0, len(head) - 1),
            caption=pair.measure,
            subtitle=f"A is {pair.first}, B is {pair.second}",
        )
    ]
    if pair.notes:
        blocks.append(Items(tuple(map(Item, pair.notes))))
    for title, part, changed in _changed(pair, queries):
        blocks += [Title(f"{title}: {part}"), Items(tuple(map(_item, changed)))]
    return blocks


def _changed(pair: Pair, queries: int) -> list[tuple[str, str, list[ChangedQuery]]]:
    """Return (task, heading, queries) for the tasks with per-query values."""
    if not queries:
        return []
    changes: list[tuple[str, str, list[ChangedQuery]]] = []
    for line in pair.tasks:
        try:
            gained, lost = changed_queries(*pair.outputs[line.title], queries)
        except MissingError as error:
            changes.append((line.title, f"its queries cannot be shown. {error}", []))
            continue
        changes += [
            (line.title, f"queries that {what} most ({line.measure}, A → B)", changed)
            for what, changed in (("gained", gained), ("lost", lost))
            if changed
        ]
    return changes


def _query_lines(one: ChangedQuery) -> list[str]:
    """Return a query as lines: its text, its gold documents' places, the best of each side."""
    lines = [f"  {_value(one)}  [{one.query}] {one.text}".rstrip()]
    lines += [f"      gold   {_moved(gold.before, gold.after)}  {_document(gold.document)}"
              for gold in one.gold[:5]]  # fmt: skip
    if len(one.gold) > 5:
        lines.append(f"      gold   and {len(one.gold) - 5} more")
    for side, documents in (("A", one.first), ("B", one.second)):
        lines += [
            f"      {side} {place}    {_mark(document)} {_document(document)}"
            for place, document in enumerate(documents, start=1)
        ] or [f"      {side}      nothing retrieved"]
    return lines


def _item(query: ChangedQuery) -> Item:
    """Return a query as an entry of a list: its gold documents, then the best of each side."""
    inner = [
        f"gold, place {_moved(gold.before, gold.after)}: {_document(gold.document)}"
        for gold in query.gold[:5]
    ]
    for side, documents in (("A", query.first), ("B", query.second)):
        best = "; ".join(
            f"{place}. {'✓ ' if document.grade else ''}{_document(document)}"
            for place, document in enumerate(documents, start=1)
        )
        inner.append(f"{side}: {best or 'nothing retrieved'}")
    return Item(f"{_value(query)} {query.query}: {query.text}", tuple(inner))


def _value(one: ChangedQuery) -> str:
    return f"{one.after - one.before:+.4f} ({one.before:.4f} → {one.after:.4f})"


def _moved(before: int | None, after: int | None) -> str:
    return f"{before or _NONE} → {after or _NONE}"


def _mark(document: Document) -> str:
    return "✓" if document.grade else " "


def _document(document: Document) -> str:
    return f"[{document.id}] {document.title}".rstrip()


def _records(pair: Pair) -> list[dict[str, Any]]:
    """Return one record a line, for CSV."""
    records = []
    for kind, lines in (("task", pair.tasks), ("mean", pair.means)):
        for line in lines:
            statistics = line.statistics
            interval = statistics.interval if statistics else None
            records.append(
                {
                    "a": pair.first,
                    "b": pair.second,
                    "kind": kind,
                    "task": line.title,
                    "measure": line.measure,
                    "score_a": line.before,
                    "score_b": line.after,
                    "difference": line.difference,
                    "low": interval.low if interval else None,
                    "high": interval.high if interval else None,
                    "p": statistics.p_value if statistics else None,
                    "p_holm": line.corrected,
                    "exact": statistics.exact if statistics else None,
                    "d": statistics.effect_size if statistics else None,
                    "wins": statistics.wins if statistics else None,
                    "ties": statistics.ties if statistics else None,
                    "losses": statistics.losses if statistics else None,
                    "unit": line.unit,
                    "verdict": str(line.verdict),
                }
            )
    return records


def _query_records(pair: Pair, queries: int) -> list[dict[str, Any]]:
    """Return one record for each of the queries that changed most, for CSV."""
    return [
        {
            "a": pair.first,
            "b": pair.second,
            "task": title,
            "query": one.query,
            "text": one.text,
            "value_a": one.before,
            "value_b": one.after,
            "difference": one.after - one.before,
        }
        for title, _, changed in _changed(pair, queries)
        for one in changed
    ]


def _content(pairs: Sequence[Pair], seed: int, queries: int) -> dict[str, Any]:
    return {
        "method": _method(seed),
        "seed": seed,
        "resamples": RESAMPLES,
        "confidence": CONFIDENCE,
        "pairs": [
            {
                "a": pair.first,
                "b": pair.second,
                "tasks": [_line_content(line) for line in pair.tasks],
                "means": [_line_content(line) for line in pair.means],
                "notes": pair.notes,
                **({"queries": _queries_content(pair, queries)} if queries else {}),
            }
            for pair in pairs
        ],
    }


def _line_content(line: Difference) -> dict[str, Any]:
    return {
        "title": line.title,
        "tasks": line.tasks,
        "measure": line.measure,
        "score_a": line.before,
        "score_b": line.after,
        "difference": line.difference,
        "unit": line.unit,
        "statistics": asdict(line.statistics) if line.statistics else None,
        "p_holm": line.corrected,
        "verdict": str(line.verdict),
    }


def _queries_content(pair: Pair, queries: int) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for line in pair.tasks:
        try:
            gained, lost = changed_queries(*pair.outputs[line.title], queries)
        except MissingError:
            content[line.title] = None
            continue
        content[line.title] = {
            "gained": [asdict(one) for one in gained],
            "lost": [asdict(one) for one in lost],
        }
    return content
