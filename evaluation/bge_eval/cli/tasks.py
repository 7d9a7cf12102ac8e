"""``bge-eval tasks``: suites, their tasks, and which can be run offline."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bge_eval.cli.grouped import grouped
from bge_eval.cli.quiet import prepare
from bge_eval.errors import UsageError

if TYPE_CHECKING:
    from bge_eval.suites.catalogue import PlannedTask


_COLUMNS = {"task": 16, "type": 9, "languages": 5, "measure": 11, "size": 9, "offline": 7}
"""Heading → the least width, chosen so that a terminal of 80 columns stays readable."""


@dataclass(frozen=True, slots=True)
class TasksFlags:
    """What is listed."""

    name: Annotated[
        str | None,
        typer.Argument(
            metavar="SUITE | TASK",
            help="A suite, a task or a folder of your own. Default: list the suites.",
            show_default=False,
        ),
    ] = None
    data_dir: Annotated[
        list[Path] | None, typer.Option(help="Look for data here, as `run` does; repeat.")
    ] = None
    lang: Annotated[
        list[str] | None, typer.Option(help="Only tasks of these languages; repeat.")
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False


@grouped
def tasks(flags: TasksFlags) -> None:
    """List the suites, or a suite's tasks and whether each can be run offline from here.

    Examples:
      bge-eval tasks

      bge-eval tasks c-mteb --data-dir ./datasets
    """
    if flags.name is None:
        if flags.lang or flags.data_dir:
            raise UsageError("--lang and --data-dir are about a suite's tasks: name a suite.")
        _list_suites(flags.as_json)
        return
    prepare(offline=True)
    from bge_eval.suites.catalogue import plan

    planned = [
        part
        for task in plan([flags.name], (), flags.lang or ())
        for part in (task.parts or (task,))
    ]
    rows = [_describe(task, flags.data_dir or []) for task in planned]
    if flags.as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from bge_eval.cli.console import stdout

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, width in _COLUMNS.items():
        table.add_column(heading, overflow="fold", min_width=width)
    for row in rows:
        state = Text("yes", style="green") if row["origin"] else Text("no", style="yellow")
        size = f"{row['size']:,}" if row["size"] else "?"
        table.add_row(row["task"], row["type"], row["languages"], row["measure"], size, state)
    stdout.print(table)
    reasons: dict[str, list[str]] = {}
    for row in rows:
        where = f"in {row['origin']}" if row["origin"] else row["missing"]
        reasons.setdefault(where, []).append(row["task"])
    for reason, names in reasons.items():
        # Not wrapped: a path that is cut in two cannot be copied.
        stdout.print(f"{', '.join(names)}: {reason}", markup=False, highlight=False, soft_wrap=True)
    ready = sum(bool(row["origin"]) for row in rows)
    stdout.print(f"{ready} of {len(rows)} tasks can be run offline from here.")


def _list_suites(as_json: bool) -> None:
    from bge_eval.suites.suite_files import suites

    if as_json:
        content = {suite.name: suite.description for suite in suites().values()}
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    from rich.table import Table

    from bge_eval.cli.console import stdout

    table = Table("suite", "what it is")
    for suite in suites().values():
        table.add_row(suite.name, suite.description)
    stdout.print(table)


def _describe(planned: PlannedTask, data_dirs: list[Path]) -> dict[str, Any]:
    """Return a task's type, languages, measure, size, and where its data are."""
    from bge_eval.errors import BgeEvalError, NoFolderError, NotCachedError

    task = planned.task
    origin, missing = "", ""
    try:
        source = planned.source(data_dirs, offline=True)
        source.check(task)
        origin = source.origin
    except (NoFolderError, NotCachedError) as error:
        missing = error.short
    except BgeEvalError as error:
        missing = str(error)
    languages = list(dict.fromkeys(code.split("-")[0] for code in task.languages))
    shown = ", ".join(languages[:4]) + (f" and {len(languages) - 4} more" if languages[4:] else "")
    return {
        "task": planned.name,
        "type": task.metadata.type,
        "languages": shown,
        "measure": task.metadata.main_score,
        "splits": list(task.eval_splits),
        "size": _size(task),
        "origin": origin,
        "missing": missing,
    }


def _size(task: Any) -> int | None:
    """Return how many documents (or samples) mteb counted in the task's splits."""
    statistics = task.metadata.descriptive_stats or {}
    counts = [
        statistics[split].get("num_documents") or statistics[split].get("num_samples")
        for split in task.eval_splits
        if split in statistics
    ]
    known = [int(count) for count in counts if count]
    return sum(known) if known else None
