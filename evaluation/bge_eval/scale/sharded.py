"""Encode one part of every task's texts, for a later run that finds them all in the store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bge_eval.data.plausibility import refuse_other_data
from bge_eval.data.sources import DataSource, is_retrieval
from bge_eval.encode.part import Part
from bge_eval.errors import BgeEvalError, StorageError, as_failure
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.judge import identity_of, visit_searches
from bge_eval.evaluation.options import Options
from bge_eval.models.partial import PartialEncoding
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress, duration
from bge_eval.results.identity import Identity
from bge_eval.results.markers import Marker, begin, mark
from bge_eval.suites.catalogue import PlannedTask
from bge_eval.suites.sources import find_sources

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(slots=True)
class PartReport:
    """What one part has done."""

    markers: list[Marker] = field(default_factory=list)
    """One for each task whose part is encoded."""
    evaluated: list[str] = field(default_factory=list)
    """Tasks without a search, which one part evaluates whole."""
    failed: dict[str, BgeEvalError] = field(default_factory=dict)
    """Task → why its part is not encoded."""


def encode_part(
    model: EncoderModel,
    tasks: Sequence[PlannedTask],
    options: Options,
    part: Part,
    progress: Progress | None = None,
    *,
    searches: bool = False,
) -> PartReport:
    """Encode one part of every task's corpus into the model's store, and mark what is done.

    A task that searches nothing is small: one of the parts evaluates it whole and saves its result.
    Repeating a part encodes only what is missing.

    Args:
        model: an encoder with a store.
        tasks: the tasks, the same and in the same order for all parts.
        options: data folders and output folder.
        part: the part.
        progress: receives every step; the model's own by default.
        searches: search each part too, for a later run that merges the searches.

    Raises:
        UsageError: the model stores no vectors.
        MissingError: data of some tasks are missing.
        StorageError: vectors or results cannot be written.
    """
    progress = progress or model.progress
    encoding = _Encoding(
        model, PartialEncoding(model, part, searches=searches), part, options, progress
    )
    sources = find_sources(
        tasks,
        options.data_dirs,
        offline=options.offline,
        dangling=options.dangling,
        available=options.available,
        here=options.available,
        note=progress.note,
    )
    singles = [single for planned in tasks for single in planned.parts or (planned,)]
    singles = [single for single in singles if single.name in sources]
    report = PartReport()
    for planned in singles:
        if not is_retrieval(planned.task):
            continue
        try:
            report.markers.append(encoding.run(planned, sources[planned.name]))
        except StorageError:  # the next task would fail too
            raise
        except Exception as error:
            report.failed[planned.name] = as_failure(error, f"A file of {planned.name}")
            progress.note(f"{planned.name} failed; the reason follows the other tasks.")
            if options.fail_fast:
                return report
    others = [single for single in singles if not is_retrieval(single.task)]
    others = [single for number, single in enumerate(others) if part.takes(number)]
    if others:
        done = evaluate(model, others, options, progress=progress)
        report.evaluated += done.done
        report.failed |= done.failed
    return report


@dataclass(frozen=True, slots=True)
class _Encoding:
    """One call of `encode_part`."""

    model: EncoderModel
    """The encoder."""
    partial: PartialEncoding
    """Encodes the part of a search."""
    part: Part
    """The part."""
    options: Options
    """Data folders and output folder."""
    progress: Progress
    """Receives every step."""

    def run(self, planned: PlannedTask, source: DataSource) -> Marker:
        """Encode the part of one task, and mark it as done."""
        task, start = planned.task, time.monotonic()
        self.model.begin(planned.task_name, planned.prompts, planned.name)
        self.progress.note(f"{planned.name}: data from {source.origin}")
        data = planned.data_identity(source)
        self.model.check_data(planned.task_name, data)
        identity = identity_of(self.model, task, data)
        retries = self._begun(identity)
        self.progress.fresh_profile()
        with source.loaded(task, self.progress):
            self._check_data(planned, source)
            planned.cut_loaded(self.progress.note)
            visit_searches(self.partial, task, self.progress)
        self.model.flush()
        marker = self._marked(identity, retries, time.monotonic() - start)
        self.progress.note(
            f"{planned.name}: part {self.part} is encoded in {duration(marker.seconds)}"
            f" ({marker.encoded:,} of {marker.texts:,} texts now)"
        )
        return marker

    def _check_data(self, planned: PlannedTask, source: DataSource) -> None:
        if self.options.other_data or planned.shipped or not source.is_copy:
            return
        for remark in refuse_other_data(planned.task, source.origin):
            self.progress.note(f"{planned.name}: {remark}")

    def _begun(self, identity: Identity) -> int:
        """Note the beginning, and return how often the part was begun before."""
        root = self.store_folder
        try:
            return begin(root, identity.digest, identity.task, self.part)
        except OSError as error:
            raise StorageError(error, root) from error

    def _marked(self, identity: Identity, retries: int, seconds: float) -> Marker:
        """Write the marker of a task whose vectors are in the store."""
        counts = self.partial.counts()
        marker = Marker(
            task=identity.filed,
            model=self.model.files.name,
            part=self.part,
            identity=identity.digest,
            packages={name: own for space in counts for name, own in space.packages.items()},
            texts=sum(each.met for each in counts.values()),
            encoded=sum(each.encoded for each in counts.values()),
            spaces={space.folder.name: each.stored for space, each in counts.items()},
            seconds=round(seconds, 3),
            retries=retries,
        )
        root = self.store_folder
        try:
            mark(root, marker)
        except OSError as error:
            raise StorageError(error, root, "The vectors are stored; run it again.") from error
        return marker

    @property
    def store_folder(self) -> Path:
        """Return the store's folder."""
        assert self.model.store is not None, "PartialEncoding refuses a model without one"
        return self.model.store.root
