"""The gate's verdict as table, document and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any

from rich.console import Console, Group, JustifyMethod
from rich.table import Column, Table
from rich.text import Text

from bge_eval.cli.formats.blocks import Block, Cell, Grid, GridLine, Output, Paragraph, Title
from bge_eval.cli.formats.blocks import Note as Remark
from bge_eval.cli.formats.registry import Format, rendered
from bge_eval.gate.baseline import Baseline
from bge_eval.gate.outcome import Finding, Outcome, Status
from bge_eval.gate.power import CORRELATION, POWER, Detectable

_STYLES = {
    Status.PASSED: "green",
    Status.IMPROVED: "cyan",
    Status.DROPPED: "yellow",
    Status.NOT_JUDGED: "yellow",
    Status.REGRESSED: "bold red",
    Status.MISSING: "bold red",
}
_MARKS = {
    Status.PASSED: "✅",
    Status.IMPROVED: "🔼",
    Status.DROPPED: "⚠️",
    Status.NOT_JUDGED: "⚠️",
    Status.REGRESSED: "❌",
    Status.MISSING: "❌",
}
_HEAD = ("task", "measure", "baseline", "now", "difference", "95% interval", "p", "verdict")
_NUMBERS = ("baseline", "now", "difference", "p")
_ONLY_WIDE = ("95% interval", "p")
"""Columns that a narrow terminal leaves out; the sentences beneath the table hold their figures."""
_WIDE = 100
"""Columns of the terminal from which every column of the table is shown."""


@dataclass(frozen=True, slots=True)
class VerdictOutput(Output):
    """A gate's verdict to print."""

    outcome: Outcome
    """The verdict on all tasks."""

    def terminal(self, console: Console) -> None:
        """Print the table, then one sentence for each finding that did not pass."""
        _terminal(self.outcome, console)

    def blocks(self) -> list[Block]:
        """Return the summary, the table and the notes."""
        outcome = self.outcome
        lines = []
        for finding in outcome.findings:
            cells = [Cell(_MARKS[finding.status]), *map(Cell, _cells(finding)[:-1])]
            cells.append(Cell(str(finding.status), rank=1, detail=finding.reason))
            lines.append(GridLine(tuple(cells)))
        return [
            Title(f"bge-eval check: {outcome.summary}", large=True),
            Paragraph(
                f"{outcome.model or 'No run'} against the baseline {outcome.baseline.name},"
                f" by {outcome.rules}."
            ),
            Grid(("", *_HEAD), tuple(lines), left=(0, 1, 2, 6, 8)),
            *(Remark(note.text, note.warning) for note in outcome.notes),
        ]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each finding."""
        return [_record(finding) for finding in self.outcome.findings]

    def content(self) -> dict[str, Any]:
        """Return the verdict with every finding and note."""
        outcome = self.outcome
        return {
            "exit_code": outcome.exit_code,
            "summary": outcome.summary,
            "baseline": str(outcome.baseline.path),
            "model": outcome.model,
            "rules": outcome.rules,
            "findings": [asdict(finding) for finding in outcome.findings],
            "notes": [asdict(note) for note in outcome.notes],
        }


def text(outcome: Outcome, width: int = 120) -> str:
    """Return what the terminal shows, without colours."""
    file = StringIO()
    _terminal(outcome, Console(file=file, width=width, highlight=False, color_system=None))
    return file.getvalue()


def markdown(outcome: Outcome) -> str:
    """Return the verdict as Markdown, e.g. for the summary of a workflow's step."""
    return rendered(VerdictOutput(outcome), Format.MARKDOWN)


def updated(before: Baseline | None, after: Baseline) -> Table:
    """Return what writing a baseline changes, as a table."""
    table = Table("task", "measure", "was", "is", "difference")
    for task, entry in after.entries.items():
        old = before.entries.get(task) if before else None
        for measure, value in entry.scores.items():
            was = old.scores.get(measure) if old else None
            change = "new" if was is None else f"{value - was:+.5f}"
            name = f"{measure} ({entry.main})" if measure == "main" else measure
            table.add_row(
                Text(task), Text(name), "–" if was is None else f"{was:.5f}", f"{value:.5f}", change
            )
    return table


def detectable(drops: Sequence[Detectable]) -> Group:
    """Return the smallest drops that a baseline detects, as a table and what it assumes."""
    table = Table("task", Column("smallest drop found", justify="right"))
    for each in drops:
        table.add_row(Text(each.title), f"{each.drop:.4f}{'' if each.measured else ' *'}")
    text = f"The gate finds a drop of this size with power {POWER:g}."
    if not all(each.measured for each in drops):
        text += f" *: if the values of a later run correlate {CORRELATION:g} with these."
    return Group(table, Text(text))


def _terminal(outcome: Outcome, console: Console) -> None:
    title = f"{outcome.model or 'no run'} against {outcome.baseline.name}"
    table = Table(title=Text(title), title_justify="left")
    shown = [name for name in _HEAD if console.width >= _WIDE or name not in _ONLY_WIDE]
    for name in shown:
        justify: JustifyMethod = "right" if name in _NUMBERS else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name != "task")
    for finding in outcome.findings:
        cells = dict(zip(_HEAD, map(Text, _cells(finding)), strict=True))
        cells["verdict"].stylize(_STYLES[finding.status])
        table.add_row(*(cells[name] for name in shown))
    console.print(table)
    for finding in outcome.findings:
        if finding.status is not Status.PASSED:
            name = f"{finding.task} {finding.what}".strip()
            console.print(Text(f"{name}: {finding.reason}", style=_STYLES[finding.status]))
    for note in outcome.notes:
        console.print(Text(note.text, style="yellow" if note.warning else "dim"))
    console.print(Text(outcome.summary, style="bold" if outcome.exit_code else "green"))


def _cells(finding: Finding) -> list[str]:
    decimals = 2 if finding.what in ("seconds", "memory, GiB") else 5
    numbers = ["–", "–", "–"]
    if finding.before is not None:
        numbers[0] = f"{finding.before:.{decimals}f}"
    if finding.after is not None:
        numbers[1] = f"{finding.after:.{decimals}f}"
    if finding.before is not None and finding.after is not None:
        numbers[2] = f"{finding.after - finding.before:+.{decimals}f}"
    interval = finding.comparison.interval if finding.comparison else None
    p_value = finding.p_value
    return [
        finding.task,
        finding.what,
        *numbers,
        f"{interval.low:+.4f} to {interval.high:+.4f}" if interval else "–",
        "–" if p_value is None else f"{p_value:.4f}" if p_value >= 1e-4 else f"{p_value:.0e}",
        str(finding.status),
    ]


def _record(finding: Finding) -> dict[str, Any]:
    interval = finding.comparison.interval if finding.comparison else None
    return {
        "task": finding.task,
        "measure": finding.what,
        "status": str(finding.status),
        "baseline": finding.before,
        "now": finding.after,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "p": finding.p_value,
        "reason": finding.reason,
    }
