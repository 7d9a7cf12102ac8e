"""Folders that sentence-transformers itself runs, through mteb's wrappers.

Sparse encoders (SPLADE), multi-vector encoders (ColBERT, PyLate), and text encoders whose modules
depend on the role or the tokens: Router, chat templates, lengths by role, modules of the
repository's own code. mteb's wrappers give their prompts, similarity and search.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from bge_eval.encode.checkpoints import refuse_other_kind
from bge_eval.encode.copies import NO_CHECKPOINT, Copy, copy_notes, recognise, takes_instructions
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.locate import locate
from bge_eval.encode.modules import Library, library_of, read_st_config
from bge_eval.encode.prompts import Prompts, model_prompts
from bge_eval.encode.registry import registry_entry
from bge_eval.encode.settings import Dtype, Overrides
from bge_eval.errors import UsageError
from bge_eval.models.base import Model
from bge_eval.models.foreign import ForeignModel, wrapped
from bge_eval.models.kinds import Kind, ModelOptions
from bge_eval.progress import Progress
from bge_eval.runtime.devices import first_device
from bge_eval.runtime.library import library_positions, load_library, refuse_foreign_modules

_LOADERS = frozenset(
    {
        *("SentenceTransformerEncoderWrapper", "sentence_transformers_loader"),
        *("SparseEncoderWrapper", "MultiVectorWrapper", "MultiVectorModel"),
    }
)
"""mteb's loaders that run a folder as it is, with the registry's prompts."""
_NOT_STORED = (
    "sentence-transformers runs this folder whole: the embedding store is not used, and every run"
    " encodes again."
)


class LibraryModel(ForeignModel):
    """A folder that sentence-transformers runs whole."""

    notes: tuple[str, ...] = ()
    """Lines for people after the settings."""

    def introduction(self) -> tuple[str, ...]:
        """Return name, revision and settings, and what else to know."""
        return (*super().introduction(), *self.notes)


class MultiVectorModel(LibraryModel):
    """A model with a vector for each token, which searches and does not encode single texts."""

    encodes: ClassVar[bool] = False


def library_model(files: ModelFiles, options: ModelOptions, progress: Progress | None) -> Model:
    """Return a folder as sentence-transformers runs it.

    Args:
        files: the model's files.
        options: device, precision, longest input, remote code.
        progress: receives the steps of loading and encoding.

    Raises:
        UsageError: the folder is a reranker, needs remote code that is not allowed, or may be a
            copy of a model with instructions.
        DamagedError: the folder's files are damaged.
    """
    library = library_of(files.folder)
    overrides = options.overrides
    dtype = overrides.dtype or Dtype.FLOAT32
    if dtype in (Dtype.INT8, Dtype.INT8_DYNAMIC):
        raise UsageError(f"--dtype {dtype} is not for {files.name}, which runs in {library}.")
    refuse_foreign_modules(files, trust_remote_code=options.trust_remote_code)
    settings: dict[str, Any] = {"library": str(library), "dtype": str(dtype)}
    if overrides.max_length is not None:
        settings["max_length"] = overrides.max_length
    if options.trust_remote_code:
        settings["remote_code"] = True
    settings |= library_positions(files)
    device = first_device(options.device)
    copy = recognise(files, overrides.known_as)
    registered = registry_entry(copy.name) if copy.name is not None else None
    prompts = model_prompts(read_st_config(files.folder), registry=None)
    _refuse_unclear(files, copy, prompts, overrides)
    mtebs = dict(registered.prompts or {}) if registered is not None else {}
    if mtebs and copy.evidence:
        settings["prompts_of"] = copy.name

    def load() -> Any:
        model = load_library(
            files,
            device=device,
            dtype=dtype,
            trust_remote_code=options.trust_remote_code,
            note=(progress or Progress()).note,
        )
        if overrides.max_length is not None:
            model.max_seq_length = overrides.max_length
        return wrapped(model, mtebs or None)

    kind = MultiVectorModel if library is Library.MULTI_VECTOR else LibraryModel
    model = kind(
        files.name,
        files.revision,
        load,
        settings=settings,
        packages=("sentence-transformers", "torch", "transformers"),
        progress=progress,
    )
    stored = (_NOT_STORED,) if options.store is not False else ()
    model.notes = (*copy_notes(copy, prompts, overrides), *stored)
    return model


def _refuse_unclear(files: ModelFiles, copy: Copy, prompts: Prompts, overrides: Overrides) -> None:
    """Refuse a folder whose texts would go without the instructions that it may need.

    Raises:
        UsageError: the folder is no embedder, is one that mteb runs with a loader of its own, or
            may be a copy of one with instructions.
    """
    if copy.name is None:
        names = [name for name in copy.candidates if takes_instructions(name)]
        if names and not prompts.has_text:
            raise UsageError(
                f"{files.name} may be a copy of {' or '.join(names[:4])}, by {copy.suggestion}."
                " Such a model needs instructions, and its files state none. Add --known-as"
                f" {names[0]} if it is a copy, --known-as {NO_CHECKPOINT} to run it without."
            )
        return
    refuse_other_kind(copy.name, overrides)
    entry = registry_entry(copy.name)
    if entry is not None and entry.loader is not None and entry.loader not in _LOADERS:
        raise UsageError(
            f"mteb runs {copy.name} through {entry.loader}, which gives its texts instructions or"
            " other options than sentence-transformers alone would. Add --loader mteb with that"
            f" name, or --known-as {NO_CHECKPOINT} to run its files as they are."
        )


def _recognises(name: str, options: ModelOptions) -> bool:
    """Return whether a folder, or a repository of the hub, runs in sentence-transformers."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if "/" not in name or name.startswith((".", "/", "~")):
            return False
        folder = locate(name, revision=options.revision, offline=options.offline).folder
    return library_of(folder) is not Library.OURS


KIND = Kind(
    "run by sentence-transformers",
    recognises=_recognises,
    open=lambda name, options, progress: library_model(
        locate(name, revision=options.revision, offline=options.offline), options, progress
    ),
    supported=frozenset({"revision", "dtype", "max_length", "known_as"}),
)
