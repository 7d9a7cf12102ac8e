"""Published checkpoints: how each is run (``tasks/models/checkpoints.toml``)."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

from bge_eval.encode.prompts import Instructions, Prompts
from bge_eval.errors import UsageError
from bge_eval.resources import tasks_folder

if TYPE_CHECKING:
    from bge_eval.encode.settings import Overrides

MODEL_CARD = "its model card"
"""The origin of prompts that the table states."""


class CheckpointKind(StrEnum):
    """What a checkpoint is."""

    EMBEDDER = "embedder"
    RERANKER = "reranker"
    LANGUAGE_MODEL = "language model"
    PRE_TRAINED = "pre-trained encoder"
    IMAGES = "images and texts"


class Run(StrEnum):
    """What running a checkpoint takes."""

    NAME = "name"
    """Its name, or a copy that is recognised."""
    OPTIONS = "options"
    """Options of the command line."""
    NO = "no"
    """bge-eval does not run it."""


class InputForm(StrEnum):
    """A form of inputs that is more than a prompt."""

    LLARA = "llara"
    """A question after the text, and the mean of its last tokens."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One or more published checkpoints that are run alike."""

    names: tuple[str, ...]
    """``org/name`` on the hub."""
    kind: CheckpointKind
    """What they are."""
    run: Run
    """What running them takes."""
    source: str
    """Where that is stated."""
    options: str = ""
    """The options, as on the command line."""
    instruction: str | None = None
    """Template of a query's task instruction."""
    by_task: Mapping[str, str] = field(default_factory=dict)
    """The authors' own instructions, by mteb's task."""
    query: str | None = None
    """Prompt of every query."""
    document: str | None = None
    """Prompt of every document."""
    form: InputForm | None = None
    """Form of the inputs, where it is more than a prompt."""
    pooling: str | None = None
    """Pooling, where the repository has no sentence-transformers files."""
    normalize: bool | None = None
    """Normalisation, likewise."""
    similarity: str | None = None
    """Similarity, likewise."""
    shape: Mapping[str, Any] = field(default_factory=dict)
    """Facts of ``config.json`` by which a copy is recognised."""
    readme: tuple[str, ...] = ()
    """The projects whose READMEs name them."""
    remark: str = ""
    """What else to know."""

    def prompts(self) -> Prompts | None:
        """Return the prompts that the table states, None where it states none."""
        if self.instruction is not None:
            instructions = Instructions(self.instruction, self.by_task, for_documents=False)
            return Prompts(source=MODEL_CARD, instructions=instructions)
        if self.query is None:
            return None
        return Prompts({"query": self.query, "document": self.document or ""}, source=MODEL_CARD)


@cache
def checkpoints() -> tuple[Checkpoint, ...]:
    """Return the table of published checkpoints."""
    path = tasks_folder() / "models" / "checkpoints.toml"
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    known = {item.name for item in fields(Checkpoint)}
    read = []
    for row in content["checkpoint"]:
        if unknown := row.keys() - known:
            raise ValueError(f"{path}: unknown key {', '.join(sorted(unknown))}")
        typed: dict[str, Any] = {"kind": CheckpointKind(row["kind"]), "run": Run(row["run"])}
        if "form" in row:
            typed["form"] = InputForm(row["form"])
        typed |= {name: tuple(row.get(name, ())) for name in ("names", "readme")}
        read.append(Checkpoint(**{**row, **typed}))
    return tuple(read)


@cache
def checkpoint(name: str) -> Checkpoint | None:
    """Return the entry of a checkpoint, None if the table has none.

    Args:
        name: ``org/name``.
    """
    return next((entry for entry in checkpoints() if name in entry.names), None)


def refuse_other_kind(name: str, overrides: Overrides) -> None:
    """Refuse to run a checkpoint as an embedder by its name alone where that is wrong.

    Args:
        name: ``org/name``.
        overrides: the user's options.

    Raises:
        UsageError: the checkpoint is a reranker, is not run here, or takes options that are
            missing.
    """
    entry = checkpoint(name)
    if entry is None:
        return
    remark = f" ({entry.remark})" if entry.remark else ""
    escape = "To run it as it is, add --known-as none."
    if entry.kind is CheckpointKind.RERANKER:
        raise UsageError(f"{name} is a reranker{remark}, not an embedder. Give it to --reranker.")
    plain = entry.kind in (CheckpointKind.LANGUAGE_MODEL, CheckpointKind.PRE_TRAINED)
    if entry.run is Run.NO and not plain:
        raise UsageError(
            f"bge-eval does not run {name}: {entry.remark or entry.kind}. Its authors' way is in"
            f" {entry.source}. {escape}"
        )
    if entry.run is Run.OPTIONS and not plain and not _any_given(entry.options, overrides):
        raise UsageError(f"Run {name} with: {entry.options}{remark} [{entry.source}]. {escape}")


def _any_given(options: str, overrides: Overrides) -> bool:
    """Return whether the user gives one of the options, or another prompt."""
    flags = [word for word in shlex.split(options) if word.startswith("--")]
    names = {flag.removeprefix("--").replace("-", "_") for flag in flags}
    names |= {"query_prompt", "instruction_format", "prompts", "known_as"}
    return any(getattr(overrides, name, None) is not None for name in names)
