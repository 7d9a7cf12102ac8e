"""Scores over prompts as tables, documents and records."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from bge_eval.cli.formats.blocks import Block, Cell, Grid, GridLine, Item, Items, Output, Paragraph
from bge_eval.cli.formats.terminal import terminal_table
from bge_eval.compare.prompts import PromptDifference, PromptReport, Spread
from bge_eval.statistics.crossed import CROSSED_METHOD, Prompt

_HEAD = ("task", "model", "prompts", "mean", "sd", "min", "max", "range")
_NONE = "–"
_CUT = 60
"""Characters of a prompt that a note shows."""


@dataclass(frozen=True, slots=True)
class PromptOutput(Output):
    """What ``bge-eval prompts`` prints."""

    report: PromptReport
    """Spreads, differences and notes."""

    def terminal(self, console: Console) -> None:
        """Print the spreads as a table, then sentences."""
        table = terminal_table(_HEAD, list(map(_cells, self.report.spreads)), left=(0, 1))
        table.title, table.title_justify = self._measure, "left"
        console.print(table)
        for line in [*self._extremes, *self._sentences]:
            console.print(Text(line), soft_wrap=True)
        for note in self.report.notes:
            console.print(Text(note), style="yellow", soft_wrap=True)
        if self.report.differences:
            console.print(Text(f"95% {CROSSED_METHOD}."), style="dim", soft_wrap=True)

    def blocks(self) -> list[Block]:
        """Return the table, the sentences, the notes and the method."""
        lines = tuple(GridLine(tuple(map(Cell, _cells(each)))) for each in self.report.spreads)
        listed = [*self._extremes, *self._sentences, *self.report.notes]
        blocks: list[Block] = [Grid(_HEAD, lines, left=(0, 1), caption=self._measure)]
        if listed:
            blocks.append(Items(tuple(map(Item, listed))))
        method = [Paragraph(f"95% {CROSSED_METHOD}.")] if self.report.differences else []
        return [*blocks, *method]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each prompt of each model on each task."""
        return [
            {
                "task": each.task,
                "model": each.model,
                "measure": each.measure,
                "query_prompt": query,
                "document_prompt": document,
                "score": score,
                "mean": each.mean,
                "sd": each.deviation,
            }
            for each in self.report.spreads
            for (query, document), score in each.scores.items()
        ]

    def content(self) -> dict[str, Any]:
        """Return spreads and differences with all their figures."""
        return {
            "method": CROSSED_METHOD,
            "models": [_spread_content(each) for each in self.report.spreads],
            "differences": [_difference_content(each) for each in self.report.differences],
            "notes": list(self.report.notes),
        }

    @property
    def _measure(self) -> str:
        names = list(dict.fromkeys(each.measure for each in self.report.spreads))
        return names[0] if len(names) == 1 else "main score"

    @property
    def _extremes(self) -> list[str]:
        """Which prompt is best and which worst, for every model and task."""
        return [
            f"{each.task}: {each.model}: best with {_named(each.best, each)}, worst with"
            f" {_named(each.worst, each)}."
            for each in self.report.spreads
            if len(each.scores) > 1
        ]

    @property
    def _sentences(self) -> list[str]:
        return [f"{each.sentence}{_share(each)}" for each in self.report.differences]


def _cells(spread: Spread) -> list[str]:
    scores = list(spread.scores.values())
    figures = [f"{spread.mean:.5f}"]
    if spread.deviation is None:
        figures += [_NONE] * 4
    else:
        edges = (spread.deviation, min(scores), max(scores), max(scores) - min(scores))
        figures += [f"{each:.5f}" for each in edges]
    return [spread.task, spread.model, str(len(scores)), *figures]


def _named(prompt: Prompt, spread: Spread) -> str:
    """Return a prompt for people, without the part that all prompts have in common."""
    kinds = zip(("query", "document"), zip(*spread.scores, strict=True), prompt, strict=True)
    varied = [(kind, text) for kind, every, text in kinds if len(set(every)) > 1]
    return " and ".join(f"{kind} prompt {_quoted(text)}" for kind, text in varied)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _CUT else f"{text[: _CUT - 1]}…")


def _share(difference: PromptDifference) -> str:
    tested = difference.statistics
    if tested is None or tested.interval is None:
        return ""
    return f" Prompts are {tested.prompt_share:.0%} of its variance."


def _spread_content(spread: Spread) -> dict[str, Any]:
    scores = list(spread.scores.values())
    return {
        "task": spread.task,
        "model": spread.model,
        "measure": spread.measure,
        "mean": spread.mean,
        "sd": spread.deviation,
        "min": min(scores),
        "max": max(scores),
        "range": max(scores) - min(scores),
        "prompts": [
            {"query": query, "document": document, "score": score}
            for (query, document), score in spread.scores.items()
        ],
    }


def _difference_content(difference: PromptDifference) -> dict[str, Any]:
    return {
        "task": difference.before.task,
        "a": difference.before.model,
        "b": difference.after.model,
        "difference": difference.after.mean - difference.before.mean,
        "statistics": asdict(difference.statistics) if difference.statistics else None,
        "p_holm": difference.corrected,
        "outlives": difference.outlives,
        "sentence": difference.sentence,
    }
