"""Find the data of every planned task before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bge_eval.data.sources import DataSource
from bge_eval.errors import MissingError, NoFolderError, NotCachedError
from bge_eval.suites.catalogue import PlannedTask


def find_sources(
    tasks: Sequence[PlannedTask],
    data_dirs: Sequence[Path],
    *,
    offline: bool = False,
    dangling: bool = False,
    available: bool = False,
    here: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, DataSource]:
    """Find the data of every task, and report all missing data together.

    Args:
        tasks: the planned tasks; the data of an aggregate are those of its parts.
        data_dirs: the user's data folders, searched in order.
        offline: open no connection.
        dangling: accept judgements of documents that the corpus lacks.
        available: leave out tasks whose data are missing, instead of raising.
        here: data that would have to be downloaded are missing. The hub is not asked.
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
            if here and not offline:
                # Its source is another one, with another identity, where nothing is downloaded.
                planned.source(data_dirs, offline=True, dangling=dangling).check(planned.task)
            source = planned.source(data_dirs, offline=offline, dangling=dangling)
            source.check(planned.task)
        except MissingError as error:
            missing[planned.name] = error
        else:
            sources[planned.name] = source
    if missing and not available:
        raise _all_missing(missing, [planned.name for planned in tasks], len(singles))
    for reason, names in _by_reason(missing).items():
        note(f"{', '.join(names)}: left out, {reason}")
    return sources


def _by_reason(missing: Mapping[str, MissingError]) -> dict[str, list[str]]:
    """Group tasks without data: reason → task names."""
    grouped: dict[str, list[str]] = {}
    for name, error in missing.items():
        if isinstance(error, NoFolderError | NotCachedError):
            grouped.setdefault(error.reason, []).append(name)
        else:
            grouped.setdefault(str(error), []).append(name)
    return grouped


def _all_missing(
    missing: Mapping[str, MissingError], planned: Sequence[str], total: int
) -> MissingError:
    """Report missing data together: tasks by reason, where data were searched, what to type."""
    if len(missing) == 1:
        return next(iter(missing.values()))
    lines = [f"The data of {len(missing)} of {total} tasks are missing."]
    for reason, names in _by_reason(missing).items():
        lines.append(f"- {', '.join(names)}: {reason}")
    searched = {
        reason.looked: None for reason in missing.values() if isinstance(reason, NoFolderError)
    }
    lines += searched
    wanted = ",".join(missing if len(missing) < len(planned) else planned)
    lines.append(
        f"Fetch them with `bge-eval data fetch --tasks {wanted} --data-dir ./datasets`, or put"
        " copies under <dir>/<task>, and add --data-dir. --available runs the tasks whose data are"
        " here."
    )
    return MissingError("\n".join(lines))
