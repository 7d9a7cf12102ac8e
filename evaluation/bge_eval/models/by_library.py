"""Folders that sentence-transformers itself runs, through mteb's wrappers.

Sparse encoders (SPLADE), multi-vector encoders (ColBERT, PyLate), and text encoders whose modules
depend on the role or the tokens: Router, chat templates, lengths by role, modules of the
repository's own code. mteb's wrappers give their prompts, similarity and search.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from bge_eval.encode.files import ModelFiles
from bge_eval.encode.locate import locate
from bge_eval.encode.modules import Library, library_of
from bge_eval.encode.settings import Dtype
from bge_eval.errors import UsageError
from bge_eval.models.base import Model, registered_meta
from bge_eval.models.foreign import ForeignModel, wrapped
from bge_eval.models.kinds import Kind, ModelOptions
from bge_eval.progress import Progress
from bge_eval.runtime.devices import first_device
from bge_eval.runtime.library import load_library, refuse_foreign_modules


class MultiVectorModel(ForeignModel):
    """A model with a vector for each token, which searches and does not encode single texts."""

    encodes: ClassVar[bool] = False


def library_model(files: ModelFiles, options: ModelOptions, progress: Progress | None) -> Model:
    """Return a folder as sentence-transformers runs it.

    Args:
        files: the model's files.
        options: device, precision, longest input, remote code.
        progress: receives the steps of loading and encoding.

    Raises:
        UsageError: the folder is a reranker, or needs remote code that is not allowed.
        DamagedError: the folder's files are damaged.
    """
    library = library_of(files.folder)
    overrides = options.overrides
    dtype = overrides.dtype or Dtype.FLOAT32
    if dtype is Dtype.INT8:
        raise UsageError(f"--dtype int8 is not for {files.name}, which runs in {library}.")
    refuse_foreign_modules(files, trust_remote_code=options.trust_remote_code)
    settings: dict[str, Any] = {"library": str(library), "dtype": str(dtype)}
    if overrides.max_length is not None:
        settings["max_length"] = overrides.max_length
    device = first_device(options.device)
    registered = registered_meta(files.name)

    def load() -> Any:
        model = load_library(
            files, device=device, dtype=dtype, trust_remote_code=options.trust_remote_code
        )
        if overrides.max_length is not None:
            model.max_seq_length = overrides.max_length
        return wrapped(model, registered.loader_kwargs.get("model_prompts") if registered else None)

    kind = MultiVectorModel if library is Library.MULTI_VECTOR else ForeignModel
    return kind(
        files.name,
        files.revision,
        load,
        settings=settings,
        packages=("sentence-transformers", "torch", "transformers"),
        progress=progress,
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
    supported=frozenset({"revision", "dtype", "max_length"}),
)
