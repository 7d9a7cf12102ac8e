"""A comparison in the form that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from bge_eval.cli.console import stderr
from bge_eval.cli.rows import (
    Form,
    as_json,
    csv_table,
    escaped,
    markdown_table,
    terminal_table,
    write,
)
from bge_eval.compare.pairs import Line, Pair, Verdict
from bge_eval.compare.queries import Changed, Document, changed_queries
from bge_eval.errors import MissingError
from bge_eval.statistics.intervals import CONFIDENCE
from bge_eval.statistics.paired import METHOD
from bge_eval.statistics.samples import RESAMPLES

_STYLES = {Verdict.BETTER: "green", Verdict.WORSE: "red"}
_WIDE = 126
"""Columns that the table needs to have every figure on one line."""
_NONE = "–"


def show_comparison(
    pairs: Sequence[Pair], form: Form, console: Console, *, seed: int, queries: int = 0
) -> None:
    """Write comparisons with the first side to stdout.

    Args:
        pairs: one for every other side.
        form: how they are written.
        console: where to.
        seed: named in the output.
        queries: how many queries that gained, and lost, most are shown for each task.
    """
    if form is Form.JSON:
        write(as_json(_content(pairs, seed, queries)), console)
    elif form is Form.CSV:
        records = [
            record
            for pair in pairs
            for record in (_query_records(pair, queries) if queries else _records(pair))
        ]
        if records:
            write(csv_table(records), console)
        for note in (note for pair in pairs for note in pair.notes):
            stderr.print(note, style="yellow", markup=False, soft_wrap=True)
    elif form is Form.MARKDOWN:
        write("\n\n".join(_markdown(pair, queries) for pair in pairs), console)
        if _tested(pairs):
            write(f"\n{_method(seed)}", console)
    else:
        for pair in pairs:
            _terminal(pair, console, queries)
        if _tested(pairs):
            console.print(Text(_method(seed)), style="dim")


def _tested(pairs: Sequence[Pair]) -> bool:
    return any(line.statistics for pair in pairs for line in pair.lines)


def _method(seed: int) -> str:
    return (
        f"{CONFIDENCE:.0%} {METHOD}; Holm 1979 over the tasks; d: Cohen's, of pairs;"
        f" {RESAMPLES:,} draws, seed {seed}."
    )


def _terminal(pair: Pair, console: Console, queries: int) -> None:
    console.print(Text(f"A  {pair.first}"))
    console.print(Text(f"B  {pair.second}"))
    lines = [*pair.lines, *pair.suites]
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
            for line in _told(one):
                console.print(Text(line))
    console.print()


_HEAD = ["task", "A", "B", "B - A", "95% interval", "p", "p (Holm)", "d", "+ / = / -", ""]


def _cells(line: Line) -> list[str]:
    title = f"{line.title} ({line.unit})" if line.unit not in ("", "queries") else line.title
    found = line.statistics
    scores = [f"{line.before:.5f}", f"{line.after:.5f}", f"{line.difference:+.5f}"]
    if found is None:
        return [title, *scores, *[_NONE] * 5, str(line.verdict)]
    interval = found.interval
    return [
        title,
        *scores,
        f"{interval.low:+.5f} … {interval.high:+.5f}" if interval else _NONE,
        _p(found.p_value),
        _p(line.corrected),
        _NONE if found.effect_size is None else f"{found.effect_size:+.2f}",
        f"{found.wins} / {found.ties} / {found.losses}",
        str(line.verdict),
    ]


def _narrow(line: Line) -> list[str]:
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


def _markdown(pair: Pair, queries: int) -> str:
    lines = [*pair.lines, *pair.suites]
    text = [
        f"**{escaped(pair.measure)}**: A is {escaped(pair.first)}, B is {escaped(pair.second)}",
        markdown_table(
            [*_HEAD[:-1], "B is"], [_cells(line) for line in lines], left=(0, len(_HEAD) - 1)
        ),
    ]
    if pair.notes:
        text.append("\n".join(f"- {escaped(note)}" for note in pair.notes))
    for title, part, changed in _changed(pair, queries):
        told = ["\n".join(_told_in_markdown(one)) for one in changed]
        text.append("\n".join([f"**{escaped(title)}: {escaped(part)}**\n", *told]))
    return "\n\n".join(text)


def _changed(pair: Pair, queries: int) -> list[tuple[str, str, list[Changed]]]:
    """Return (task, what happened, queries) for the tasks with values of single queries."""
    if not queries:
        return []
    found: list[tuple[str, str, list[Changed]]] = []
    for line in pair.lines:
        try:
            gained, lost = changed_queries(*pair.outputs[line.title], queries)
        except MissingError as error:
            found.append((line.title, f"its queries cannot be shown. {error}", []))
            continue
        found += [
            (line.title, f"queries that {what} most ({line.measure}, A → B)", changed)
            for what, changed in (("gained", gained), ("lost", lost))
            if changed
        ]
    return found


def _told(one: Changed) -> list[str]:
    """Tell a query in lines: its text, where its gold was and is, what came before it."""
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


def _told_in_markdown(one: Changed) -> list[str]:
    lines = [f"- {_value(one)} {escaped(one.query)}: {escaped(one.text)}"]
    lines += [
        f"  - gold, place {_moved(gold.before, gold.after)}: {escaped(_document(gold.document))}"
        for gold in one.gold[:5]
    ]
    for side, documents in (("A", one.first), ("B", one.second)):
        best = "; ".join(
            f"{place}. {'✓ ' if document.grade else ''}{escaped(_document(document))}"
            for place, document in enumerate(documents, start=1)
        )
        lines.append(f"  - {side}: {best or 'nothing retrieved'}")
    return lines


def _value(one: Changed) -> str:
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
    for kind, lines in (("task", pair.lines), ("mean", pair.suites)):
        for line in lines:
            found = line.statistics
            interval = found.interval if found else None
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
                    "p": found.p_value if found else None,
                    "p_holm": line.corrected,
                    "exact": found.exact if found else None,
                    "d": found.effect_size if found else None,
                    "wins": found.wins if found else None,
                    "ties": found.ties if found else None,
                    "losses": found.losses if found else None,
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
                "tasks": [_line_content(line) for line in pair.lines],
                "means": [_line_content(line) for line in pair.suites],
                "notes": pair.notes,
                **({"queries": _queries_content(pair, queries)} if queries else {}),
            }
            for pair in pairs
        ],
    }


def _line_content(line: Line) -> dict[str, Any]:
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
    for line in pair.lines:
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
