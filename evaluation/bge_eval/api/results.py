"""What `evaluate` returns: result files, scores, tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bge_eval.errors import BgeEvalError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from bge_eval.leaderboard.board import Leaderboard


@dataclass(frozen=True, slots=True)
class Results:
    """The results of one `evaluate` call."""

    folder: Path
    """The folder of results, which ``bge-eval table`` and mteb's ``ResultCache`` read."""
    files: Mapping[str, tuple[Path, ...]]
    """Task → its result files: the first stage, then the reranked one if there is one."""
    failures: Mapping[str, BgeEvalError]
    """Task → why it could not be evaluated."""
    reused: tuple[str, ...] = ()
    """Tasks whose result was already in the folder."""

    def score(self, task: str, measure: str = "main", *, first_stage: bool = False) -> float:
        """Return one task's score, 0 to 1.

        Args:
            task: mteb's task name, or the name of your own collection.
            measure: ``"main"`` for the task's own, or ``"nDCG@10"``, ``"RR@10"``, ``"R@100"`` …
            first_stage: return the score before reranking.

        Raises:
            BgeEvalError: the task failed; the error is the task's own.
            UsageError: the task was not evaluated, or has no such measure.
        """
        if task in self.failures:
            raise self.failures[task]
        if task not in self.files:
            raise UsageError(
                f"{task} was not evaluated. There are results of: {', '.join(self.files)}."
            )
        stage = 0 if first_stage else -1
        rows = self._board([self.files[task][stage]], [task], measure).rows
        if not rows:
            raise UsageError(f"The result of {task} has no {measure}. Its own measure is 'main'.")
        return rows[0].scores[task]

    def scores(self, measure: str = "main") -> dict[str, float]:
        """Return task → score for every task that was evaluated, 0 to 1.

        Raises:
            UsageError: a task has no such measure.
        """
        return {task: self.score(task, measure) for task in self.files}

    def table(self, measure: str = "main") -> Leaderboard:
        """Return the table that ``bge-eval run`` prints: one row for each stage."""
        paths = [path for stages in self.files.values() for path in stages]
        return self._board(paths, list(self.files), measure)

    def to_pandas(self, measure: str = "main") -> pd.DataFrame:
        """Return the table as a data frame: a row for each stage, a column for each task."""
        return self.table(measure).frame()

    @staticmethod
    def _board(paths: list[Path], tasks: list[str], measure: str) -> Leaderboard:
        from bge_eval.leaderboard.reading import leaderboard
        from bge_eval.measures.mteb_keys import MAIN_KEY, parse_key

        key = MAIN_KEY if measure == "main" else parse_key(measure)
        return leaderboard(paths, measure=measure, key=key, tasks=tasks)
