"""Whose rules a model is run by: mteb's leaderboard's, or its authors' own for the model card.

The rules are data (``tasks/protocols/*.toml``): which tasks' queries get the model's prompt, and
in which task types vectors stay as they are pooled.
"""

from __future__ import annotations

import fnmatch
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

from bge_eval.resources import tasks_folder

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata


class ProtocolName(StrEnum):
    """The protocols there are."""

    LEADERBOARD = "leaderboard"
    MODEL_CARD = "model-card"


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for the tasks of some languages."""

    languages: frozenset[str]
    """mteb's codes without script, e.g. {"zho", "cmn"}; a task's must all be among them."""
    query_prompt: tuple[str, ...]
    """Names of the tasks whose queries get the model's prompt; "*" stands for anything."""
    unnormalized_types: frozenset[str] = frozenset()
    """mteb's task types in which vectors are not normalised."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """Rules by which a model is run."""

    name: ProtocolName
    """As given to ``--protocol``."""
    rules: tuple[Rule, ...] = ()
    """Rules, of which at most one is for a task."""

    def drops_query_prompt(self, task: TaskMetadata) -> bool:
        """Tell whether the queries of a task go without the model's prompt."""
        rule = self._rule(task)
        return rule is not None and not any(
            fnmatch.fnmatchcase(task.name, pattern) for pattern in rule.query_prompt
        )

    def drops_normalization(self, task: TaskMetadata) -> bool:
        """Tell whether the vectors of a task stay as they are pooled."""
        rule = self._rule(task)
        return rule is not None and task.type in rule.unnormalized_types

    def _rule(self, task: TaskMetadata) -> Rule | None:
        if str(task.dataset.get("path", "")).startswith("local/"):  # a collection of one's own
            return None
        spoken = {code.split("-")[0] for code in task.languages}
        return next((rule for rule in self.rules if spoken <= rule.languages), None)


@cache
def read_protocol(name: ProtocolName) -> Protocol:
    """Read a protocol's file."""
    path = tasks_folder() / "protocols" / f"{name}.toml"
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return Protocol(
        name,
        tuple(
            Rule(
                frozenset(rule["languages"]),
                tuple(rule["query_prompt"]),
                frozenset(rule.get("unnormalized_types", ())),
            )
            for rule in content.get("rule", ())
        ),
    )
