"""Reproduced scores as tables, documents and records."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from bge_eval.cli.formats.blocks import Block, Cell, Grid, GridLine, Item, Items, Output, Paragraph
from bge_eval.cli.formats.terminal import terminal_table
from bge_eval.cli.reproduce import Line, data_fetch
from bge_eval.reproduction.tables import MAIN, Verdict

_HEAD = ("model", "task", "measure", "published", "here", "difference", "")
_STYLES = {Verdict.OK: "green", Verdict.CLOSE: "yellow", Verdict.OFF: "red", Verdict.FAILED: "red"}
_NONE = "–"


@dataclass(frozen=True, slots=True)
class ReproductionOutput(Output):
    """What ``bge-eval reproduce`` prints."""

    lines: Sequence[Line]
    """One for each published score."""
    data: Path
    """Where data that are missing would go."""

    def terminal(self, console: Console) -> None:
        """Print the scores at hand as a table, then how to fetch the rest."""
        if shown := self._at_hand:
            styles = [_STYLES.get(line.verdict, "") if line.verdict else "" for line in shown]
            models = list(dict.fromkeys(line.claim.model for line in shown))
            first = 0 if len(models) > 1 else 1  # one model is the title
            body = [_cells(line)[first:] for line in shown]
            left = (0, 1, 6) if not first else (0, 5)
            table = terminal_table(_HEAD[first:], body, left=left, styles=styles)
            table.title, table.title_justify = models[0] if first else "", "left"
            console.print(table)
        for text in [*self._reasons, *self._missing]:
            console.print(Text(text), soft_wrap=True)
        console.print(Text(self.summary), soft_wrap=True)

    def blocks(self) -> list[Block]:
        """Return the table, how to fetch the rest, and the counts."""
        blocks: list[Block] = []
        if self._at_hand:
            cells = [GridLine(tuple(map(Cell, _cells(line)))) for line in self._at_hand]
            blocks.append(Grid(_HEAD, tuple(cells), left=(0, 1, 6)))
        if listed := [*self._reasons, *self._missing]:
            blocks.append(Items(tuple(map(Item, listed))))
        return [*blocks, Paragraph(self.summary)]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each published score."""
        return [
            {
                "table": line.claim.table,
                "model": line.claim.model,
                "task": line.claim.task,
                "subset": line.claim.subset,
                "measure": line.claim.measure,
                "published": line.claim.score,
                "score": line.score,
                "difference": None if line.score is None else line.score - line.claim.score,
                "tolerance": line.claim.tolerance,
                "close": line.claim.close,
                "verdict": _verdict(line),
                "reason": line.reason,
                "command": f"bge-eval run {shlex.join(line.claim.words)}",
                "fetch_model": line.model_fetch,
                "fetch_data": line.data_fetch,
                "source": line.claim.source,
            }
            for line in self.lines
        ]

    def content(self) -> dict[str, Any]:
        """Return the records and their counts by verdict."""
        return {"counts": dict(Counter(map(_verdict, self.lines))), "scores": self.records()}

    @property
    def summary(self) -> str:
        """The number of scores by verdict."""
        counts = Counter(map(_verdict, self.lines))
        return (
            f"{len(self.lines)} scores: " + ", ".join(f"{n} {v}" for v, n in counts.items()) + "."
        )

    @property
    def _at_hand(self) -> list[Line]:
        return [line for line in self.lines if line.verdict is not Verdict.MISSING]

    @property
    def _reasons(self) -> list[str]:
        return [
            f"{line.claim.model} on {line.claim.heading} failed: {line.reason}"
            for line in self.lines
            if line.verdict is Verdict.FAILED
        ]

    @property
    def _missing(self) -> list[str]:
        """How to fetch what is missing."""
        missing = [line for line in self.lines if line.verdict is Verdict.MISSING]
        models = Counter(line.model_fetch for line in missing if line.model_fetch)
        texts = [f"missing model: {command}    ({n} scores)" for command, n in models.items()]
        without = [line for line in missing if line.data_fetch]
        if without:
            tasks = list(dict.fromkeys(line.claim.task for line in without))
            command = data_fetch(tasks, self.data)
            texts.append(f"missing data: {command}    ({len(without)} scores)")
        return texts


def _cells(line: Line) -> list[str]:
    claim, score = line.claim, line.score
    return [
        claim.model,
        claim.heading,
        "" if claim.measure == MAIN else claim.measure,
        f"{claim.score:.5f}",
        _NONE if score is None else f"{score:.5f}",
        _NONE if score is None else f"{score - claim.score:+.5f}",
        _verdict(line),
    ]


def _verdict(line: Line) -> str:
    return "to run" if line.verdict is None else str(line.verdict)
