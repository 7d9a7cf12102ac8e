"""The data source of a user's task class that loads its own data."""

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
    """A user's task class with its own ``load_data``."""

    name: str
    """``package.module:Class``."""

    @property
    def origin(self) -> str:
        """Return the name of the class."""
        return self.name

    @property
    def is_copy(self) -> bool:
        """Return False: the class defines its data."""
        return False

    def identity(self, task: AbsTask) -> DataIdentity:
        """Load the data with a second instance and fingerprint every row.

        The class may read any source, so only the loaded rows show whether the data changed.
        """
        twin = type(task)()
        _load(twin, self.name)
        digest = hashlib.sha256()
        _feed(twin.dataset, digest)
        twin.unload_data()
        subsets = tuple(task.hf_subsets)
        return DataIdentity("code", digest.hexdigest()[:16], tuple(task.eval_splits), subsets)

    def check(self, task: AbsTask) -> None:
        """Do nothing: only loading shows whether the data are there."""

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
        # The user's code may raise anything.
        reason = one_line(error)
        raise DamagedError(
            f"{name} could not load its data ({type(error).__name__}: {reason})."
        ) from error


def _feed(content: Any, digest: Any) -> None:
    """Update a digest with every row of nested tables, in order."""
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
