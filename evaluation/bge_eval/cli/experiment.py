"""``bge-eval run experiment.toml``: many settings, with the work that they share done once."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bge_eval.cli.console import stdout
from bge_eval.cli.evaluating import Evaluation
from bge_eval.cli.formats.terminal import terminal_table
from bge_eval.cli.opening import Opener, blend
from bge_eval.cli.records import evaluate_options
from bge_eval.cli.words import Parsed
from bge_eval.errors import UsageError
from bge_eval.evaluation.judge import searches
from bge_eval.experiment.file import Choice, Experiment
from bge_eval.models.base import Model
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.rerank.remembered import RememberedScores
from bge_eval.results.saved import SavedResult
from bge_eval.suites.catalogue import PlannedTask, plan
from bge_eval.suites.cutting import refuse_mixed

if TYPE_CHECKING:
    from bge_eval.evaluation.evaluate import Preview
    from bge_eval.rerank.reranker import Reranker
    from bge_eval.results.finished import Report

DEV = "dev"
"""The folder in the output folder for results that only choose a setting."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One evaluation of one setting that would run."""

    label: str
    """What tells the setting from the others."""
    split: str
    """The split that chooses; "" for the task's own."""
    preview: Preview | None
    """The task and its state; None for all tasks, after a choice."""
    texts: int
    """Texts to encode, by mteb's counts; settings with the same vectors count once."""


@dataclass(slots=True)
class Sweep:
    """Runs the settings of an experiment one after another."""

    experiment: Experiment
    """The settings."""
    parsed: dict[int, Parsed]
    """Number of a setting, from 0 → its options."""
    progress: Progress
    """Told of every step."""
    _models: tuple[str, list[Model]] = ("", [])
    _rerankers: dict[str, RememberedScores] = field(default_factory=dict)

    def run(self) -> list[Report]:
        """Evaluate every setting; of those that differ in chosen options only, the best."""
        reports: list[Report] = []
        for group in self._groups():
            number = group[0] if len(group) == 1 else self._best(group)
            if number is None:
                reports += self._failed
                continue
            reports += self._evaluate(number)
        if {"query-prompt", "document-prompt"} & {*self.experiment.varied}:
            output = shlex.quote(str(self.parsed[0].data.output))
            self.progress.note(f"The prompt's share of these scores: bge-eval prompts {output}")
        return reports

    def preview(self) -> list[Planned]:
        """Return what would run, setting by setting."""
        rows: list[Planned] = []
        counted: set[str] = set()
        for group in self._groups():
            split = self._choice.split if len(group) > 1 else ""
            for number in group:
                setting = self.experiment.settings[number]
                label = setting.label(self.experiment.varied) or "the only one"
                evaluation, models = self._open(number, split)
                tasks = {task.name: task for task in evaluation.tasks}
                for model in models:
                    name = f": {model.mteb_model_meta.name}" if len(models) > 1 else ""
                    for preview in evaluation.preview(model):
                        texts = 0
                        for single in tasks[preview.task].parts or (tasks[preview.task],):
                            for role, count in _texts_by_role(single).items():
                                key = f"{split} {single.name} {_encoding(model, single, role)}"
                                if not preview.saved and key not in counted:
                                    counted.add(key)
                                    texts += count
                        rows.append(Planned(label + name, split, preview, texts))
            if split:
                rows.append(Planned(f"the best of these {len(group)}", "", None, 0))
        return rows

    # ── choosing on another split ───────────────────────────────────────────────────────────

    @property
    def _choice(self) -> Choice:
        assert self.experiment.choice is not None
        return self.experiment.choice

    _failed: list[Report] = field(default_factory=list)

    def _best(self, group: Sequence[int]) -> int | None:
        """Return the number of the setting that is best on the choosing split; None if one fails.

        The score is the mean of the main scores of all tasks. Of equal ones the first counts.
        """
        names = self._choice.options
        scores: dict[int, float] = {}
        for number in group:
            reports = self._evaluate(number, self._choice.split)
            if any(report.failed or report.left for report in reports):
                self._failed = reports
                return None
            last = [SavedResult(paths[-1]) for paths in reports[-1].done.values()]
            scores[number] = sum(result.main_score() for result in last) / len(last)
        best = max(group, key=lambda number: scores[number])
        settings = self.experiment.settings
        listed = "; ".join(
            f"{settings[number].label(names)}: {score:.5f}" for number, score in scores.items()
        )
        self.progress.note(
            f"Chosen on {self._choice.split}: {settings[best].label(names)} ({listed})"
        )
        return best

    # ── one setting ─────────────────────────────────────────────────────────────────────────

    def _groups(self) -> Iterator[list[int]]:
        numbers = {id(setting): n for n, setting in enumerate(self.experiment.settings)}
        for group in self.experiment.groups():
            yield [numbers[id(setting)] for setting in group]

    def _evaluate(self, number: int, split: str = "") -> list[Report]:
        setting, total = self.experiment.settings[number], len(self.experiment.settings)
        label = setting.label(self.experiment.varied) or "the only one"
        on = f", on {split}" if split else ""
        self.progress.note(f"Setting {number + 1} of {total}{on}: {label}")
        evaluation, models = self._open(number, split)
        return evaluation.run(models, blend(self.parsed[number].model))

    def _open(self, number: int, split: str) -> tuple[Evaluation, list[Model]]:
        """Return the evaluation of a setting; what is open from other settings stays open."""
        parsed = self.parsed[number]
        tasks = plan(parsed.tasks.names, parsed.tasks.subset or [], parsed.tasks.lang or [])
        options = evaluate_options(parsed.data, parsed.reranker)
        if split:
            for task in tasks:
                _put_on_split(task, split, self.experiment.file)
            options = replace(options, output=options.output / DEV)
        tasks = parsed.data.cut.apply(tasks)
        if split:
            refuse_mixed(tasks)
        opener = Opener(
            parsed.model,
            parsed.reranker,
            parsed.server,
            parsed.machine,
            parsed.data.offline,
            self.progress,
        )
        opener.check()
        reranker: Reranker | None = self._reranker(parsed, opener)
        unfused = replace(parsed.model, fuse=None, weights=None)
        key = repr((unfused, parsed.server, parsed.machine, parsed.reranker.first_stage))
        if not parsed.model.names and parsed.reranker.first_stage is None:
            models, reranker = opener.open_models(reranker)
            return Evaluation(tasks, options, reranker, self.progress), models
        if key != self._models[0]:
            # The next model reads what these have stored; their memory is free before it is loaded.
            for model in self._models[1]:
                if isinstance(model, EncoderModel):
                    model.flush()
            self._models = ("", [])
            self._models = (key, opener.open_models(None)[0])
        return Evaluation(tasks, options, reranker, self.progress), self._models[1]

    def _reranker(self, parsed: Parsed, opener: Opener) -> RememberedScores | None:
        if parsed.reranker.reranker is None:
            return None
        flags = replace(parsed.reranker, rerank_top_k=None, first_stage=None)
        dtype, code = parsed.model.settings.dtype, parsed.model.trust_remote_code
        key = repr((flags, parsed.server, parsed.machine, dtype, code))
        if key not in self._rerankers:
            reranker = opener.open_reranker()
            assert reranker is not None
            self._rerankers[key] = RememberedScores(reranker)
        return self._rerankers[key]


def show_preview(sweep: Sweep) -> None:
    """Print what an experiment would run, what is done, and how much there is to encode."""
    rows = sweep.preview()
    several = sweep.experiment.choice is not None
    table = [
        (
            row.label,
            *([row.split or "its own"] if several else []),
            row.preview.task if row.preview else "all",
            state(row.preview) if row.preview else "after the choice",
        )
        for row in rows
    ]
    titles = ("setting", *(["split"] if several else []), "task", "state")
    stdout.print(terminal_table(titles, table, left=tuple(range(len(titles)))))
    done = sum(row.preview is not None and state(row.preview) == "done" for row in rows)
    texts = sum(row.texts for row in rows)
    size = f"; at most {texts:,} texts to encode, fewer where some are stored" if texts else ""
    sweep.progress.note(
        f"{len(sweep.experiment.settings)} settings, {len(rows)} evaluations, {done} done{size}."
    )
    sweep.progress.note(
        f"The first setting alone: bge-eval run {shlex.join(sweep.experiment.settings[0].words())}"
    )


def state(task: Preview) -> str:
    """Return what would happen with a task."""
    if not task.stages:
        return "data missing"
    if task.saved == task.stages:
        return "done"
    return f"to run ({task.saved} of {task.stages} parts done)" if task.saved else "to run"


def _put_on_split(planned: PlannedTask, split: str, file: Path) -> None:
    """Let a task be scored on a split that only chooses.

    Raises:
        UsageError: the task is reported on this split.
    """
    for single in planned.parts or (planned,):
        if split in single.task.eval_splits:
            raise UsageError(
                f'{file}, [choose]: split = "{split}" is the split on which {single.name} is'
                " reported. What is chosen and what is reported must not be the same; name"
                " another split, such as dev or train."
            )
        if not searches(single.task):
            raise UsageError(
                f"{file}, [choose]: {single.name} searches nothing, so there is no depth and no"
                " weight to choose."
            )
        single.task.filter_eval_splits([split])


def _texts_by_role(planned: PlannedTask) -> dict[str, int]:
    """Return "query", "document" or "text" → how many there are, by mteb's counts."""
    from bge_eval.data.plausibility import expected_counts

    roles = {"queries": "query", "documents": "document", "samples": "text"}
    counts: dict[str, int] = {}
    for name, count in expected_counts(planned.task).items():
        role = roles[name.rpartition(" ")[2]]
        counts[role] = counts.get(role, 0) + count
    if len(counts) > 1:  # the samples of a search are its queries and documents
        counts.pop("text", None)
    return counts


def _encoding(model: Model, planned: PlannedTask, role: str) -> str:
    """Return what a model's vectors of a task's texts depend on; the name for other models."""
    if not model.encodes:
        return f"{role} {model.mteb_model_meta.name}"
    identity = dict(model.identity(planned.task.metadata))
    prompts = identity.pop("prompts", None)
    own = prompts.get(role) if isinstance(prompts, dict) else prompts
    return repr((role, own, {k: identity[k] for k in sorted(identity) if k not in _NOT_STORED}))


_NOT_STORED = ("normalize", "truncate_dim", "similarity")
"""Settings that are applied to stored vectors."""
