"""Mistakes of a run as tables and records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from bge_eval.mistakes.groups import Group, KindShare, Share

if TYPE_CHECKING:
    from rich.console import Console

    from bge_eval.mistakes.queries import JudgedQuery
    from bge_eval.records import Excerpt
    from bge_eval.statistics.intervals import Interval

_NONE = "–"
METHOD = (
    "95% intervals of every group by itself, not corrected for the number of groups; shares: Wilson"
    " 1927. points lost: what the mean over all queries would gain if these queries scored 1."
)
"""The methods in one line."""
_SHOWN = 90
"""Characters shown of a text."""


@dataclass(frozen=True, slots=True)
class Example:
    """A failed query to show."""

    query: JudgedQuery
    """The query."""
    text: str
    """The beginning of its text; "" if no excerpt is saved."""
    above: tuple[tuple[str, str], ...]
    """(id, title or beginning) of the documents above its first relevant one."""

    @property
    def line(self) -> str:
        """The query in one line."""
        place = f"first relevant at {self.query.first}" if self.query.first else "none retrieved"
        return f"{self.query.value:.4f}  [{self.query.id}] {self.text} ({place})"


@dataclass(frozen=True, slots=True)
class TaskMistakes:
    """The mistakes of one system on one task."""

    label: str
    """The system."""
    task: str
    """The task."""
    measure: str
    """The measure of the means."""
    queries: int
    """Number of queries with a relevant document."""
    kinds: Sequence[KindShare]
    """Every kind of mistake."""
    groups: Sequence[Group]
    """The groups of all subjects, subject by subject."""
    examples: Sequence[Example] = ()
    """Failed queries, by kind."""
    notes: Sequence[str] = ()
    """Remarks."""

    @property
    def title(self) -> str:
        """What is shown, in one line."""
        return f"{self.label} on {self.task}: {self.queries:,} queries, {self.measure}"


@dataclass(frozen=True, slots=True)
class MistakesOutput(Output):
    """Mistakes to print, task by task."""

    tasks: Sequence[TaskMistakes]
    """The tasks."""

    def terminal(self, console: Console) -> None:
        """Print two tables for each task."""
        for task in self.tasks:
            console.print(Text(task.title, style="bold"))
            console.print(terminal_table(_KIND_HEAD, [_kind_cells(kind) for kind in task.kinds]))
            if task.groups:
                firsts = {group.subject: group for group in reversed(task.groups)}
                body = [_narrow(g, first=firsts[g.subject] is g) for g in task.groups]
                console.print(terminal_table(_NARROW_HEAD, body))
            _print_examples(task.examples, console)
            for note in task.notes:
                console.print(Text(note), style="yellow")
        console.print(Text(METHOD), style="dim")

    def blocks(self) -> list[Block]:
        """Return the tables as a document."""
        blocks: list[Block] = []
        for task in self.tasks:
            kinds = [GridLine(tuple(map(Cell, _kind_cells(kind)))) for kind in task.kinds]
            groups = [GridLine(tuple(map(Cell, _group_cells(group)))) for group in task.groups]
            blocks += [Title(task.title, large=True), Grid(_KIND_HEAD, tuple(kinds))]
            if groups:
                blocks.append(Grid(_GROUP_HEAD, tuple(groups), left=(0, 1)))
            if task.examples:
                blocks.append(Items(tuple(map(_item, task.examples))))
            if task.notes:
                blocks.append(Items(tuple(map(Item, task.notes))))
        return [*blocks, Paragraph(METHOD)]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each kind and each group."""
        return [record for task in self.tasks for record in _records(task)]

    def content(self) -> dict[str, Any]:
        """Return every task with its kinds, groups, examples and notes."""
        return {
            "method": METHOD,
            "tasks": [
                {
                    "run": task.label,
                    "task": task.task,
                    "measure": task.measure,
                    "queries": task.queries,
                    "groups": _records(task),
                    "examples": [
                        {
                            "kind": str(one.query.kind),
                            "part": one.query.part,
                            "query": one.query.id,
                            "text": one.text,
                            "value": one.query.value,
                            "first_relevant": one.query.first,
                            "above": [id for id, _ in one.above],
                        }
                        for one in task.examples
                    ],
                    "notes": list(task.notes),
                }
                for task in self.tasks
            ],
        }


def example(
    query: JudgedQuery, queries: Mapping[str, str], documents: Mapping[str, Excerpt]
) -> Example:
    """Return a failed query as it is shown."""

    def shown(id: str) -> str:
        excerpt = documents.get(id)
        return _cut(excerpt.title or excerpt.text) if excerpt else ""

    return Example(
        query, _cut(queries.get(query.id, "")), tuple((id, shown(id)) for id in query.top)
    )


def _print_examples(examples: Sequence[Example], console: Console) -> None:
    kind = None
    for one in examples:
        if one.query.kind is not kind:
            kind = one.query.kind
            console.print(Text(f"\n{kind}", style="bold"))
        console.print(Text(f"  {one.line}"))
        for id, text in one.above:
            console.print(Text(f"      above: [{id}] {text}"))


_KIND_HEAD = ("mistake", "queries", "share", "95% interval", "mean", "points lost")
_GROUP_HEAD = (
    "by", "group", "queries", "mean", "95% interval", "nothing in 100", "95%",
    "false positive above", "95%", "points lost",
)  # fmt: skip


def _kind_cells(kind: KindShare) -> list[str]:
    return [
        str(kind.kind),
        f"{kind.share.count:,}",
        *_share_cells(kind.share),
        _NONE if kind.mean is None else f"{kind.mean:.4f}",
        f"{100 * kind.lost:.2f}",
    ]


def _group_cells(group: Group) -> list[str]:
    return [
        group.subject,
        group.name,
        f"{group.queries:,}",
        f"{group.mean:.4f}",
        _NONE if group.interval is None else _interval(group.interval, 1, 4),
        *_share_cells(group.missed),
        *_share_cells(group.above),
        f"{100 * group.lost:.2f}",
    ]


_NARROW_HEAD = (
    "group", "queries", "mean\n95%", "nothing\nin 100", "false positive\nabove", "points\nlost",
)  # fmt: skip


def _narrow(group: Group, *, first: bool) -> list[str]:
    """Return the same figures in cells of two lines; the first of a subject names it."""
    subject, name, queries, mean, interval, *shares, lost = _group_cells(group)
    missed, missed_interval, above, above_interval = shares
    return [
        f"{subject}\n  {name}" if first else f"  {name}",
        queries,
        f"{mean}\n{interval}",
        f"{missed}\n{missed_interval}",
        f"{above}\n{above_interval}",
        lost,
    ]


def _share_cells(share: Share) -> list[str]:
    return [f"{share.value:.1%}", _interval(share.interval, 100, 1)]


def _interval(interval: Interval, factor: float, digits: int) -> str:
    return f"{factor * interval.low:.{digits}f}–{factor * interval.high:.{digits}f}"


def _records(task: TaskMistakes) -> list[dict[str, Any]]:
    shared = {"run": task.label, "task": task.task, "measure": task.measure}
    records: list[dict[str, Any]] = [
        {
            **shared,
            "by": "mistake",
            "group": str(kind.kind),
            "queries": kind.share.count,
            "of": kind.share.total,
            "mean": kind.mean,
            "low": None,
            "high": None,
            "lost": kind.lost,
            **_share_fields("share", kind.share),
            **dict.fromkeys(_share_fields("missed", kind.share)),
            **dict.fromkeys(_share_fields("above", kind.share)),
        }
        for kind in task.kinds
    ]
    return records + [
        {
            **shared,
            "by": group.subject,
            "group": group.name,
            "queries": group.queries,
            "of": task.queries,
            "mean": group.mean,
            "low": group.interval.low if group.interval else None,
            "high": group.interval.high if group.interval else None,
            "lost": group.lost,
            **_share_fields("share", Share(group.queries, task.queries)),
            **_share_fields("missed", group.missed),
            **_share_fields("above", group.above),
        }
        for group in task.groups
    ]


def _share_fields(name: str, share: Share) -> dict[str, float]:
    interval = share.interval
    return {name: share.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _item(one: Example) -> Item:
    above = tuple(f"above: {id} {text}".rstrip() for id, text in one.above)
    return Item(f"{one.query.kind}: {one.line}", above)


def _cut(text: str) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
