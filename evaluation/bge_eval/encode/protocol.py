"""Evaluation protocols: mteb's leaderboard, a model card's scores, or the model's own files.

A protocol is a data file (``tasks/protocols/*.toml``): the tasks whose queries get the model's
prompt, and the task types whose vectors are not normalised. Which prompts a model has under
``model-files`` is decided in `bge_eval.encode.prompts.model_prompts`.
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
    """The names of the protocols."""

    LEADERBOARD = "leaderboard"
    MODEL_CARD = "model-card"
    MODEL_FILES = "model-files"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule for the tasks of some languages."""

    languages: frozenset[str]
    """mteb's codes without script, e.g. {"zho", "cmn"}; they must cover all of a task's."""
    query_prompt: tuple[str, ...]
    """Names of the tasks whose queries get the model's prompt; "*" is a wildcard."""
    unnormalized_types: frozenset[str] = frozenset()
    """mteb's task types whose vectors are not normalised."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """A named set of rules."""

    name: ProtocolName
    """The value of ``--protocol``."""
    rules: tuple[Rule, ...] = ()
    """The rules; at most one applies to a task."""

    def drops_query_prompt(self, task: TaskMetadata) -> bool:
        """Return whether a task's queries are encoded without the model's prompt."""
        rule = self._rule(task)
        return rule is not None and not any(
            fnmatch.fnmatchcase(task.name, pattern) for pattern in rule.query_prompt
        )

    def drops_normalization(self, task: TaskMetadata) -> bool:
        """Return whether a task's vectors are not normalised."""
        rule = self._rule(task)
        return rule is not None and task.type in rule.unnormalized_types

    def _rule(self, task: TaskMetadata) -> Rule | None:
        if str(task.dataset.get("path", "")).startswith("local/"):  # a user's data set
            return None
        languages = {code.split("-")[0] for code in task.languages}
        return next((rule for rule in self.rules if languages <= rule.languages), None)


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
