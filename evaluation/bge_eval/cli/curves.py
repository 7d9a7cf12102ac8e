"""Curves as tables, documents and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from bge_eval.cli.formats.blocks import Block, Cell, Grid, GridLine, Item, Items, Output, Paragraph
from bge_eval.cli.formats.terminal import terminal_table
from bge_eval.curve.figures import (
    LEVEL,
    Figures,
    Pace,
    smallest_without_loss,
    summary,
)
from bge_eval.curve.grid import setting_name
from bge_eval.search.trials import RECALL_AT

_NONE = "–"
_HEAD = ["dimensions", "vectors", "index", "rescored", "nDCG@10", "difference", "p (Holm)"]
_HEAD += [f"recall@{depth}" for depth in RECALL_AT]
_HEAD += ["bytes a document", "build s"]


@dataclass(frozen=True, slots=True)
class CurveOutput(Output):
    """The points of a curve to print."""

    rows: Sequence[Figures]
    """The figures of every setting; the exact search over full vectors first."""
    model: str
    """The model as it was named."""
    tasks: Sequence[str]
    """The tasks whose mean is shown."""

    @property
    def title(self) -> str:
        """The model and the tasks."""
        tasks = ", ".join(self.tasks) if len(self.tasks) <= 4 else f"{len(self.tasks)} tasks"
        return f"{self.model} on {tasks}"

    def terminal(self, console: Console) -> None:
        """Print one table, its figures in cells of several lines, and sentences."""
        head = ["vectors", "nDCG\n@10", f"recall\n@{RECALL_AT[0]}\n@{RECALL_AT[1]}"]
        head += ["bytes/doc\nbuild s"]
        head += [f"{_cores(pace.threads)}\nq/s\np50/p95 ms" for pace in self.rows[0].paces]
        body = [_narrow(row) for row in self.rows]
        styles = ["bold" if row.in_front else "" for row in self.rows]
        table = terminal_table(head, body, styles=styles)
        table.title, table.title_justify = self.title, "left"
        console.print(table)
        for line in self._sentences():
            console.print(Text(line))
        console.print(Text(self._method()), style="dim")

    def blocks(self) -> list[Block]:
        """Return the table, the sentences and the method."""
        head = list(_HEAD)
        for pace in self.rows[0].paces:
            cores = _cores(pace.threads)
            head += [f"queries/s, {cores}", f"p50 ms, {cores}", f"p95 ms, {cores}"]
        lines = tuple(GridLine(tuple(map(Cell, _cells(row)))) for row in self.rows)
        return [
            Grid((*head, "front"), lines, left=(1, 2), caption=self.title),
            Items(tuple(map(Item, self._sentences()))),
            Paragraph(self._method()),
        ]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each setting."""
        return [_record(row) for row in self.rows]

    def content(self) -> dict[str, Any]:
        """Return the settings with all figures, their tests and their sentences."""
        smallest = smallest_without_loss(self.rows)
        return {
            "model": self.model,
            "tasks": list(self.tasks),
            "rows": [
                _record(row)
                | {
                    "options": row.point.options.identity(),
                    "run_options": run_options(row),
                    "scores": row.per_task(),
                    "statistics": asdict(row.comparison),
                    "summary": summary(row, self.rows[0]),
                }
                for row in self.rows
            ],
            "smallest_without_loss": summary(smallest, self.rows[0]) if smallest else None,
            "method": self._method(),
        }

    def _sentences(self) -> list[str]:
        """Return the settings of the front in sentences, and the one to try first."""
        smallest = smallest_without_loss(self.rows)
        lines = [summary(row, self.rows[0]) for row in self.rows[1:] if row.in_front]
        if smallest is not None:
            lines.append(
                "The smallest without a loss that is more than chance:"
                f" {summary(smallest, self.rows[0])}"
            )
            lines.append(f"The same alone: bge-eval run … {' '.join(run_options(smallest))}")
        return lines

    def _method(self) -> str:
        depths = {row.point.options.depth for row in self.rows} - {None}
        asked = f" Indexes are asked for {min(d for d in depths if d)} documents." if depths else ""
        return (
            "In bold, or marked as front: no setting of at most as much memory has a higher"
            f" nDCG@10. recall@{RECALL_AT[0]} and @{RECALL_AT[1]}: share of the documents of the"
            " exact search over float32 vectors of the same dimension. Differences are to the first"
            f" row: paired randomisation test over queries, Holm over the rows, level {LEVEL:g}."
            f" Latency is of queries one by one, queries a second are of all together.{asked}"
        )


def run_options(row: Figures) -> list[str]:
    """Return the options of ``bge-eval run`` that give the same scores."""
    options = row.point.options
    words = ["--truncate-dim", str(row.point.dimension)] if row.point.truncated else []
    if options.name != "flat":
        words += ["--index", options.name]
    for name, value in options.params:
        words += ["--index-param", f"{name}={value:g}"]
    facts = options.identity()
    for key in ("vectors", "rescore_top", "index_depth"):
        if key in facts:
            words += [f"--{key.replace('_', '-')}", str(facts[key])]
    return words


def _cores(threads: int) -> str:
    return "1 core" if threads == 1 else f"{threads} cores"


def _cells(row: Figures) -> list[str]:
    options = row.point.options
    cells = [
        str(row.point.dimension),
        str(options.precision),
        setting_name(options),
        str(options.rescore or _NONE),
        f"{row.ndcg:.5f}",
        f"{row.comparison.difference:+.5f}",
        f"{row.corrected:.2g}",
        *(f"{recall:.4f}" for recall in row.recalls),
        f"{row.bytes_per_document:,.0f}",
        _seconds(row.build_seconds),
    ]
    for pace in row.paces:
        cells += [_rate(pace), f"{pace.p50_ms:.3f}", f"{pace.p95_ms:.3f}"]
    return [*cells, "✓" if row.in_front else ""]


def _narrow(row: Figures) -> list[str]:
    """Return the same figures in cells of two lines."""
    options = row.point.options
    rescored = f"\n{options.rescore} rescored" if options.rescore is not None else ""
    return [
        f"{row.point.dimension} {options.precision}\n{setting_name(options)}{rescored}",
        f"{row.ndcg:.5f}\n{row.comparison.difference:+.5f}",
        "\n".join(f"{recall:.4f}" for recall in row.recalls),
        f"{row.bytes_per_document:,.0f}\n{_seconds(row.build_seconds)}",
        *(f"{_rate(pace)}\n{pace.p50_ms:.2f}/{pace.p95_ms:.2f}" for pace in row.paces),
    ]


def _seconds(seconds: float | None) -> str:
    return _NONE if seconds is None else f"{seconds:.2f}"


def _rate(pace: Pace) -> str:
    return f"{pace.queries_per_second:,.0f}"


def _record(row: Figures) -> dict[str, Any]:
    options, statistics = row.point.options, row.comparison
    record: dict[str, Any] = {
        "dimension": row.point.dimension,
        "vectors": str(options.precision),
        "index": setting_name(options),
        "rescored": options.rescore,
        "index_depth": options.depth,
        "nDCG@10": row.ndcg,
        "R@100": row.recall_at_100,
        "difference": statistics.difference,
        "low": statistics.interval.low if statistics.interval else None,
        "high": statistics.interval.high if statistics.interval else None,
        "p": statistics.p_value,
        "p_holm": row.corrected,
    }
    for depth, recall in zip(RECALL_AT, row.recalls, strict=True):
        record[f"recall@{depth}"] = recall
    record |= {
        "bytes_per_document": row.bytes_per_document,
        "full_bytes_per_document": row.full_bytes_per_document,
        "build_seconds": row.build_seconds,
        "front": row.in_front,
    }
    for name, pace in zip(("one_core", "all_cores"), row.paces, strict=True):
        record |= {
            f"{name}_threads": pace.threads,
            f"{name}_queries_per_second": pace.queries_per_second,
            f"{name}_p50_ms": pace.p50_ms,
            f"{name}_p95_ms": pace.p95_ms,
        }
    return record
