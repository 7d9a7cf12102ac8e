"""Data that a task class of the user's own loads by itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bge_eval.data.sources import DataIdentity
from bge_eval.errors import BgeEvalError, DamagedError, one_line
from bge_eval.progress import Progress

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

_ROWS = 4096


@dataclass(frozen=True, slots=True)
class TaskClassSource:
    """A task whose class, named as ``package.module:Class``, has a ``load_data`` of its own."""

    name: str
    """``package.module:Class``."""

    @property
    def origin(self) -> str:
        """Return the class, which is all that is known of where its data lie."""
        return self.name

    @property
    def is_copy(self) -> bool:
        """The class decides what its data are."""
        return False

    def identity(self, task: AbsTask) -> DataIdentity:
        """Fingerprint what the class loads.

        A class may read whatever it likes, so only the loaded rows tell whether the data are
        still those of an earlier result.
        """
        twin = type(task)()
        _load(twin, self.name)
        digest = hashlib.sha256()
        _feed(twin.dataset, digest)
        twin.unload_data()
        subsets = tuple(task.hf_subsets)
        return DataIdentity("code", digest.hexdigest()[:16], tuple(task.eval_splits), subsets)

    def check(self, task: AbsTask) -> None:
        """Nothing can be said before the class has loaded its data."""

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Let the class load its data."""
        with progress.step("load"):
            _load(task, self.name)
        try:
            yield
        finally:
            task.unload_data()


def loads_itself(task: AbsTask) -> bool:
    """Tell whether a task's class has a ``load_data`` other than that of mteb's base classes."""
    defined = getattr(type(task).load_data, "__module__", "")
    return not defined.startswith("mteb.abstasks")


def _load(task: AbsTask, name: str) -> None:
    try:
        task.load_data()
        convert: Any = getattr(task, "convert_v1_dataset_format_to_v2", None)
        if convert is not None:
            convert(num_proc=None)
    except BgeEvalError:
        raise
    except Exception as error:
        # The user's own code may raise anything; it is their data that could not be had.
        reason = one_line(error)
        raise DamagedError(
            f"{name} could not load its data ({type(error).__name__}: {reason})."
        ) from error


def _feed(content: Any, digest: Any) -> None:
    """Put every row of nested tables into a digest, in order."""
    if isinstance(content, Mapping):
        for key in content:
            digest.update(f"{key}\0".encode())
            _feed(content[key], digest)
    elif hasattr(content, "column_names"):
        for start in range(0, len(content), _ROWS):
            _feed_value(content[start : start + _ROWS], digest)
    else:
        _feed_value(content, digest)


def _feed_value(value: Any, digest: Any) -> None:
    digest.update(json.dumps(value, sort_keys=True, default=repr).encode())
