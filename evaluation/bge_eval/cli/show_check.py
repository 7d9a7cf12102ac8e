"""The gate's verdict in the form that was asked for."""

from __future__ import annotations

import json
from dataclasses import asdict
from io import StringIO

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from bge_eval.cli.forms import CheckForm
from bge_eval.gate.baseline import Baseline
from bge_eval.gate.outcome import Finding, Outcome, Status

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
"""What the sentences beneath the table say too, or can be done without."""
_WIDE = 100
"""From so many columns on, everything is shown."""


def show_check(outcome: Outcome, form: CheckForm, console: Console) -> None:
    """Write the verdict to stdout."""
    if form is CheckForm.TERMINAL:
        _terminal(outcome, console)
    elif form is CheckForm.MARKDOWN:
        console.file.write(markdown(outcome))
    else:
        console.file.write(_json(outcome) + "\n")


def text(outcome: Outcome, width: int = 120) -> str:
    """Return what the terminal shows, without colours."""
    file = StringIO()
    _terminal(outcome, Console(file=file, width=width, highlight=False, color_system=None))
    return file.getvalue()


def markdown(outcome: Outcome) -> str:
    """Return the verdict as Markdown, e.g. for the summary of a workflow's step."""
    lines = [
        f"### bge-eval check: {outcome.summary}",
        "",
        f"{_escape(outcome.model or 'No run')} against the baseline"
        f" {_escape(outcome.baseline.name)}, by {_escape(outcome.rules)}.",
        "",
        "| | " + " | ".join(_HEAD) + " |",
        "| --- | --- | --- | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    for finding in outcome.findings:
        cells = [_escape(cell) for cell in _cells(finding)]
        cells[-1] = f"**{finding.status}** {_escape(finding.said)}"
        lines.append(f"| {_MARKS[finding.status]} | {' | '.join(cells)} |")
    for note in outcome.notes:
        lines += ["", f"> {'⚠️ ' if note.warning else ''}{_escape(note.text)}"]
    return "\n".join(lines) + "\n"


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
            console.print(Text(f"{name}: {finding.said}", style=_STYLES[finding.status]))
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
        "–" if p_value is None else f"{p_value:.4f}",
        str(finding.status),
    ]


def _escape(cell: str) -> str:
    """Keep a text from being read as Markdown or HTML."""
    for mark in "\\`*_[]<>|":
        cell = cell.replace(mark, f"\\{mark}")
    return " ".join(cell.split())


def _json(outcome: Outcome) -> str:
    content = {
        "exit_code": outcome.exit_code,
        "summary": outcome.summary,
        "baseline": str(outcome.baseline.path),
        "model": outcome.model,
        "rules": outcome.rules,
        "findings": [asdict(finding) for finding in outcome.findings],
        "notes": [asdict(note) for note in outcome.notes],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)
