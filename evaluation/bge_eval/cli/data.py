"""``bge-eval data``: download data sets and verify local ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.formats.printable import print_error
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.tasks import split_names
from bge_eval.cli.quiet import prepare

if TYPE_CHECKING:
    from bge_eval.data.fetch import Verification
    from bge_eval.progress import Progress
    from bge_eval.suites.catalogue import PlannedTask


class Whence(StrEnum):
    """Where data are fetched from."""

    HUB = "hub"
    BEIR = "beir"


@dataclass(frozen=True, slots=True)
class FetchFlags:
    """The tasks whose data are fetched, and from where."""

    tasks: Annotated[list[str], typer.Option("--tasks", "-t", help="Suites and tasks; repeat.")]
    data_dir: Annotated[Path, typer.Option(help="Folder of the downloaded data.")]
    lang: Annotated[list[str] | None, typer.Option(help="Only tasks of these languages.")] = None
    whence: Annotated[
        Whence,
        typer.Option("--from", help="mteb's dataset repositories, or BEIR's own zips."),
    ] = Whence.HUB
    mirror: Annotated[
        str | None,
        typer.Option(help="With --from beir: the address under which the zips lie."),
    ] = None


@grouped
def fetch(flags: FetchFlags) -> None:
    """Download the data of tasks for offline use.

    Complete files are not downloaded again and interrupted downloads go on. Checksums are verified,
    and recorded for `bge-eval data check`.

    Examples:
      bge-eval data fetch --tasks c-mteb --data-dir ./datasets

      bge-eval data fetch --tasks SciFact,NFCorpus --data-dir ./datasets --from beir
    """
    prepare()
    from bge_eval.cli.console import TerminalProgress
    from bge_eval.errors import BgeEvalError, UsageError
    from bge_eval.suites.catalogue import plan

    if flags.mirror and flags.whence is not Whence.BEIR:
        raise UsageError("--mirror says where BEIR's zips lie: add --from beir.")
    if flags.data_dir.is_file():
        raise UsageError(f"--data-dir {flags.data_dir} is a file; give a folder.")
    progress = TerminalProgress()
    names = split_names(flags.tasks)
    planned = [
        part for task in plan(names, (), flags.lang or ()) for part in (task.parts or (task,))
    ]
    failed = 0
    for number, part in enumerate(planned, start=1):
        if part.shipped or part.code:
            reason = "comes with bge-eval" if part.shipped else "loads its own data"
            progress.note(f"[{number}/{len(planned)}] {part.name}: {reason}")
            continue
        try:
            folder = _fetch(part, flags.data_dir, flags.whence, flags.mirror, progress)
        except BgeEvalError as error:
            failed += 1
            print_error(str(error))
        else:
            progress.note(f"[{number}/{len(planned)}] {part.name}: {folder}")
    if failed:
        typer.echo(f"{failed} of {len(planned)} data sets could not be fetched.", err=True)
        raise typer.Exit(3)


def _fetch(
    part: PlannedTask, data_dir: Path, whence: Whence, mirror: str | None, progress: Progress
) -> Path:
    from bge_eval.data.fetch import fetch_dataset
    from bge_eval.data.ir_collections import IrSource
    from bge_eval.data.zips import fetch_zip
    from bge_eval.errors import MissingError

    if part.ir:
        progress.note(f"{part.ir}: ir_datasets downloads what is absent …")
        return IrSource(part.ir).fetch()
    if whence is Whence.BEIR:
        published = part.published_zip()
        if published is None:
            raise MissingError(f"BEIR publishes no zip of {part.name}; leave out --from beir.")
        if mirror:
            url = f"{mirror.rstrip('/')}/{published.name}.zip"
            published = replace(published, url=url)
        return fetch_zip(published, data_dir, progress)
    folder = part.folder_names[0] if part.repositories else ""
    return fetch_dataset(part.task, data_dir, folder=folder, repositories=part.repositories)


@dataclass(frozen=True, slots=True)
class CheckedDataFlags:
    """The tasks and folders whose data are verified."""

    tasks: Annotated[list[str], typer.Option("--tasks", "-t", help="Suites and tasks; repeat.")]
    data_dir: Annotated[list[Path], typer.Option(help="Folders of data sets; repeat.")]
    subset: Annotated[list[str] | None, typer.Option(help="Only these subsets; repeat.")] = None
    lang: Annotated[list[str] | None, typer.Option(help="Only these languages; repeat.")] = None


@grouped
def check(flags: CheckedDataFlags) -> None:
    """Verify local data sets: every line, every reference, checksums and counts.

    Compares the checksums of fetched files and BEIR's zips, checks that the document and query of
    every judgement exist, and compares with mteb's counts.

    Examples:
      bge-eval data check --tasks SciFact --data-dir ./datasets
    """
    prepare(offline=True)
    from rich.table import Table
    from rich.text import Text

    from bge_eval.cli.console import TerminalProgress, stdout
    from bge_eval.suites.catalogue import plan

    planned = plan(split_names(flags.tasks), flags.subset or (), flags.lang or ())
    parts = [part for task in planned for part in (task.parts or (task,))]
    progress = TerminalProgress()
    table = Table("task", "counted", "verdict")
    lines: list[str] = []
    bad = 0
    for part in parts:
        origin, verdict = _verified(part, flags.data_dir, progress)
        wrong = bool(verdict.problems)
        bad += wrong
        counted = ", ".join(f"{number:,} {name}" for name, number in verdict.counted.items())
        table.add_row(part.name, counted, Text("wrong" if wrong else "ok", "red" if wrong else ""))
        place = f"in {origin}. " if origin else ""
        lines.append(f"{part.name}: {place}{' '.join(verdict.problems) or 'As expected.'}")
    stdout.print(table)
    for line in lines:
        # Not wrapped: a path that is cut in two cannot be copied.
        stdout.print(line, markup=False, highlight=False, soft_wrap=True)
    if bad:
        typer.echo(f"{bad} of {len(parts)} data sets are missing or not as expected.", err=True)
        raise typer.Exit(3)


def _verified(
    part: PlannedTask, folders: list[Path], progress: Progress
) -> tuple[str, Verification]:
    """Return where a task's data are, and the faults in them."""
    from bge_eval.data.fetch import Verification, verify
    from bge_eval.data.manifest import damaged_files
    from bge_eval.errors import BgeEvalError

    origin = ""
    try:
        place = part.place(folders)
        published = part.published_zip()
        md5 = published.md5 if published else None
        if place and (damaged := damaged_files(place, folders, md5)):
            return str(place), Verification({}, tuple(damaged))
        source = part.source(folders, offline=True)
        source.check(part.task)
        origin = source.origin
        return origin, verify(part.task, source, progress)
    except BgeEvalError as error:
        return origin, Verification({}, (str(error),))
