"""Recognise a local copy of a published model, by its own files.

A copy of a repository rarely names the model, and mteb knows prompts and lengths by the name. What
proves the name is used: the commit that the hub's client noted, the address of a Git clone, or a
name of the folder or the README that fits the shape in ``config.json``. What only suggests a name
is returned as a candidate, to be asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.encode.checkpoints import checkpoint, checkpoints, refuse_other_kind
from bge_eval.encode.config import CONFIG, read_object, transformer_folder
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.locate import name_of
from bge_eval.encode.prompts import Prompts
from bge_eval.encode.protocol import ProtocolName
from bge_eval.encode.registry import (
    PLAIN_LOADERS,
    has_prompts,
    refuse_other_loader,
    registry_entry,
)
from bge_eval.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from bge_eval.encode.settings import Overrides

NO_CHECKPOINT = "none"
"""The value of ``--known-as`` for a model that is no known checkpoint."""
_ADDRESS = re.compile(r"url *= *\S*(?:huggingface\.co|hf\.co)[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/? *$")
_README_NAME = re.compile(r"^model-index:\s*\n\s*-\s*name:\s*['\"]?([\w./-]+)", re.MULTILINE)
_README_BASE = re.compile(r"^base_model:[ \t]*(?:\n[ \t]*-[ \t]*)?['\"]?([\w./-]+)", re.MULTILINE)
_README_CHARACTERS = 200_000
"""Enough for the front matter, which holds the scores of a model card."""
_COMMON_SHAPES = {"bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "modernbert"}
"""Model types whose shape alone suggests no checkpoint: many models share it."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Which published model a model's files are."""

    name: str | None = None
    """``org/name``, None if they are no known model's."""
    evidence: str = ""
    """What proves it, "" where the name is the model's own."""
    candidates: tuple[str, ...] = ()
    """Models that they may be."""
    suggestion: str = ""
    """What suggests these."""


def recognise(files: ModelFiles, known_as: str | None = None) -> Copy:
    """Return which published model a model's files are.

    Args:
        files: the model's files.
        known_as: the user's answer, an ``org/name`` or "none".

    Raises:
        UsageError: the user names a model that neither mteb nor the table of checkpoints knows.
    """
    if known_as == NO_CHECKPOINT:
        return Copy()
    if files.name.startswith("builtin/"):
        if known_as is not None:
            raise UsageError(
                f"--known-as {known_as} tells what a local folder is a copy of, and {files.name} is"
                " none. Leave it out."
            )
        return Copy()
    if known_as is not None:
        if known_as not in _known_names():
            raise UsageError(
                f"--known-as {known_as}: neither mteb's registry nor the table of checkpoints knows"
                f" it.{did_you_mean(known_as, _known_names())} For a model that is no known one:"
                f" --known-as {NO_CHECKPOINT}."
            )
        return Copy(known_as, "--known-as")
    if files.from_hub or files.name in _known_names():
        return Copy(files.name)
    return _by_commit(files.folder) or _by_address(files.folder) or _by_name(files.folder)


def known_name(model: str, known_as: str | None = None) -> str | None:
    """Return which published model a name or folder is, without loading anything.

    Args:
        model: hub id or local folder.
        known_as: the user's answer.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return known_as or model
    return recognise(ModelFiles(name_of(model), "", folder.resolve(), False), known_as).name


def _by_commit(folder: Path) -> Copy | None:
    """Return the model whose commit the hub's client noted (``hf download --local-dir``)."""
    note = folder / ".cache" / "huggingface" / "download" / f"{CONFIG}.metadata"
    if not note.is_file():
        return None
    commit = note.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    name = _names_by_commit().get(commit)
    return Copy(name, f"its commit {commit[:12]}") if name is not None else None


def _by_address(folder: Path) -> Copy | None:
    """Return the repository that a Git clone came from."""
    config = folder / ".git" / "config"
    if not config.is_file():
        return None
    for line in config.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := _ADDRESS.search(line):
            return Copy(match[1], "the address of its Git repository")
    return None


def _by_name(folder: Path) -> Copy:
    """Return the model of the folder's or the README's name if the shape fits, or candidates."""
    config = read_object(transformer_folder(folder) / CONFIG)
    readme = _readme(folder)
    own = _README_NAME.search(readme)
    sources = {"its folder's name": folder.name, "the name in its README": own[1] if own else ""}
    suggested: dict[str, str] = {}
    for source, name in sources.items():
        models = _models_named(name)
        fitting = [model for model in models if _fits(model, config)]
        if len(fitting) == 1:
            return Copy(fitting[0], f"{source} and its shape")
        suggested |= dict.fromkeys(models, source)
    # A model that was trained from another keeps its prompts, as a rule.
    trained_from = _README_BASE.search(readme)
    if trained_from is not None:
        suggested |= dict.fromkeys(_models_named(trained_from[1]), "the base model in its README")
    base = str(config.get("_name_or_path") or "")
    suggested |= dict.fromkeys(_models_named(base), f"{CONFIG} ({base!r})")
    if not suggested:
        suggested = dict.fromkeys(_models_of_shape(config), "its shape")
    if not suggested:
        return Copy()
    return Copy(candidates=tuple(suggested), suggestion=next(iter(suggested.values())))


def _readme(folder: Path) -> str:
    """Return the beginning of a folder's README, "" without one."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_README_CHARACTERS)


def _models_named(name: str) -> list[str]:
    """Return the known models with a name, whole or without its organisation."""
    if name in _known_names():
        return [name]
    return _names_by_end().get(name.rstrip("/").rsplit("/", 1)[-1].lower(), []) if name else []


def _models_of_shape(config: Mapping[str, Any]) -> Iterable[str]:
    """Return the instruction-tuned checkpoints with a shape that few models have."""
    if config.get("model_type") in _COMMON_SHAPES:
        return []
    return [
        name
        for entry in checkpoints()
        if entry.shape and _has_shape(entry.shape, config)
        for name in entry.names
    ]


def _fits(name: str, config: Mapping[str, Any]) -> bool:
    """Return whether a ``config.json`` has a model's shape, as far as that is known."""
    entry = checkpoint(name)
    if entry is not None and entry.shape:
        return _has_shape(entry.shape, config)
    from mteb.models.model_implementations import MODEL_REGISTRY

    width = config.get("hidden_size", config.get("d_model"))
    meta = MODEL_REGISTRY.get(name)
    dimensions = meta.embed_dim if meta is not None else None
    return width is not None and width in (
        dimensions if isinstance(dimensions, list) else [dimensions]
    )


def _has_shape(shape: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    return all(config.get(name) == value for name, value in shape.items())


def refuse_unclear(files: ModelFiles, copy: Copy, prompts: Prompts, overrides: Overrides) -> None:
    """Refuse a model whose texts would go without the instructions that it may need.

    Args:
        files: the model's files.
        copy: which published model they are.
        prompts: the model's prompts.
        overrides: the user's options.

    Raises:
        UsageError: the model is no embedder that runs by its name, or may be a copy of one with
            instructions.
    """
    if copy.name is not None:
        refuse_other_model(copy.name, overrides)
        return
    stated = (overrides.query_prompt, overrides.prompts, overrides.instruction_format)
    by_files = overrides.protocol is ProtocolName.MODEL_FILES
    names = [name for name in copy.candidates if takes_instructions(name)]
    if not names or by_files or prompts.has_text or any(item is not None for item in stated):
        return
    raise UsageError(
        f"{files.name} may be a copy of {' or '.join(names[:4])}, by {copy.suggestion}. Such a"
        " model needs instructions, and its files state none. If it is a copy, add --known-as"
        f" {names[0]}. If not, add --query-prompt, --instruction-format, or --known-as"
        f" {NO_CHECKPOINT} to run it without."
    )


def refuse_other_model(name: str, overrides: Overrides) -> None:
    """Refuse a published model that is no embedder that runs by its name.

    Args:
        name: ``org/name``.
        overrides: the user's options.

    Raises:
        UsageError: see `refuse_other_kind` and `refuse_other_loader`.
    """
    refuse_other_kind(name, overrides)
    if overrides.query_prompt is None:
        refuse_other_loader(name, registry_entry(name))


def copy_notes(copy: Copy, prompts: Prompts, overrides: Overrides) -> tuple[str, ...]:
    """Return lines about a copy that was recognised by its files, or that may be one.

    A copy of ``bge-base-en-v1.5`` holds no query prompt, since the hub's repository holds none:
    mteb knows it by the model's name.
    """
    if copy.name is not None:
        if copy.evidence in ("", "--known-as"):
            return ()
        return (
            f"Recognised as {copy.name} by {copy.evidence}; prompts and settings are that model's."
            f" If it is another, add --known-as {NO_CHECKPOINT}.",
        )
    stated = (overrides.query_prompt, overrides.prompts, overrides.instruction_format)
    by_files = overrides.protocol is ProtocolName.MODEL_FILES
    if by_files or any(item is not None for item in stated):
        return ()
    prompted = [name for name in copy.candidates if takes_instructions(name) or has_prompts(name)]
    if not prompted:
        return ()
    own = "are used as they are" if prompts.has_text else "state none"
    return (
        f"Note: by {copy.suggestion}, this may be a copy of {' or '.join(prompted[:4])}, which mteb"
        f" knows prompts for; those of its files {own}. If it is, add --known-as {prompted[0]}.",
    )


def takes_instructions(name: str) -> bool:
    """Return whether a model's texts get instructions, or mteb runs it in a way of its own."""
    entry, registered = checkpoint(name), registry_entry(name)
    own = (entry.instruction, entry.query, entry.form) if entry is not None else ()
    if any(item is not None for item in own):
        return True
    if registered is None or registered.loader is None:
        return False
    return registered.instructions is not None or registered.loader not in PLAIN_LOADERS


@cache
def _known_names() -> frozenset[str]:
    from mteb.models.model_implementations import MODEL_REGISTRY

    table = (name for entry in checkpoints() for name in entry.names)
    return frozenset([*map(str, MODEL_REGISTRY), *table])


@cache
def _names_by_end() -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name in sorted(_known_names()):
        names.setdefault(name.rsplit("/", 1)[-1].lower(), []).append(name)
    return names


@cache
def _names_by_commit() -> dict[str, str]:
    from mteb.models.model_implementations import MODEL_REGISTRY

    names: dict[str, list[str]] = {}
    for name, meta in MODEL_REGISTRY.items():
        names.setdefault(str(meta.revision), []).append(str(name))
    return {commit: alike[0] for commit, alike in names.items() if len(alike) == 1}
