"""Find the data of every planned task before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bge_eval.data.sources import DataSource
from bge_eval.errors import MissingError, NoFolderError
from bge_eval.suites.catalogue import PlannedTask


def find_sources(
    tasks: Sequence[PlannedTask],
    data_dirs: Sequence[Path],
    *,
    offline: bool = False,
    dangling: bool = False,
    available: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, DataSource]:
    """Find the data of every task, and report all missing data together.

    Args:
        tasks: the planned tasks; the data of an aggregate are those of its parts.
        data_dirs: the user's data folders, searched in order.
        offline: open no connection.
        dangling: accept judgements of documents that the corpus lacks.
        available: leave out tasks whose data are missing, instead of raising.
        note: receives one line for every task that is left out.

    Returns:
        Task name → its data.

    Raises:
        MissingError: data are missing and ``available`` is not set.
    """
    sources: dict[str, DataSource] = {}
    missing: dict[str, MissingError] = {}
    singles = [part for planned in tasks for part in (planned.parts or (planned,))]
    for planned in singles:
        try:
            source = planned.source(data_dirs, offline=offline, dangling=dangling)
            source.check(planned.task)
        except MissingError as error:
            missing[planned.name] = error
        else:
            sources[planned.name] = source
    if missing and not available:
        raise _all_missing(missing, len(singles))
    for name, reason in missing.items():
        short = reason.short if isinstance(reason, NoFolderError) else str(reason)
        note(f"{name} is left out: {short}")
    return sources


def _all_missing(missing: Mapping[str, MissingError], total: int) -> MissingError:
    """Report missing data together; list the searched folders once."""
    if len(missing) == 1:
        return next(iter(missing.values()))
    lines = [f"The data of {len(missing)} of {total} tasks are missing:"]
    searched: dict[str, None] = {}
    for name, reason in missing.items():
        if isinstance(reason, NoFolderError):
            lines.append(f"- {name}: {reason.short}")
            searched.setdefault(reason.looked)
        else:
            lines.append(f"- {name}: {reason}")
    advice = "--available runs the tasks whose data are here."
    return MissingError("\n".join([*lines, *searched, advice]))
