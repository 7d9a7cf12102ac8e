"""Folders that sentence-transformers itself runs, through mteb's wrappers.

Sparse encoders (SPLADE), multi-vector encoders (ColBERT, PyLate), and text encoders whose modules
depend on the role or the tokens: Router, chat templates, lengths by role, modules of the
repository's own code. mteb's wrappers give their prompts, similarity and search.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from bge_eval.encode.files import ModelFiles
from bge_eval.encode.locate import locate
from bge_eval.encode.modules import Library, library_of, modules_of
from bge_eval.encode.settings import Dtype
from bge_eval.encode.weights import check_weights
from bge_eval.errors import BgeEvalError, DamagedError, MissingError, UsageError, one_line
from bge_eval.models.base import Model, registered_meta
from bge_eval.models.foreign import ForeignModel, wrapped
from bge_eval.models.kinds import Kind, ModelOptions
from bge_eval.progress import Progress
from bge_eval.runtime.devices import first_device


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
    if not options.trust_remote_code:
        _refuse_remote_code(files)
    settings: dict[str, Any] = {"library": str(library), "dtype": str(dtype)}
    if overrides.max_length is not None:
        settings["max_length"] = overrides.max_length
    device = first_device(options.device)

    def load() -> Any:
        return _load(files, library, device, settings, options.trust_remote_code)

    kind = MultiVectorModel if library is Library.MULTI_VECTOR else ForeignModel
    return kind(
        files.name,
        files.revision,
        load,
        settings=settings,
        packages=("sentence-transformers", "torch", "transformers"),
        progress=progress,
    )


def _refuse_remote_code(files: ModelFiles) -> None:
    for module in modules_of(files.folder) or []:
        if not module.reference.startswith(("sentence_transformers.", "pylate.")):
            raise UsageError(
                f"{files.name} has the module {module.reference}, whose Python code comes with the"
                " model and does not run by default. If you trust its authors, add"
                " --trust-remote-code."
            )


def _load(
    files: ModelFiles,
    library: Library,
    device: str,
    settings: Mapping[str, Any],
    trust_remote_code: bool,
) -> Any:
    """Return mteb's wrapper of the loaded folder."""
    import sentence_transformers
    import torch

    from bge_eval.runtime.loading import refuse_random_weights

    kind = getattr(sentence_transformers, library, None)
    if kind is None:
        raise MissingError(
            f"{files.name} is a {library}, which needs a newer package: pip install -U"
            " sentence-transformers"
        )
    for path in [files.folder, *(item for item in files.folder.iterdir() if item.is_dir())]:
        check_weights(path)
    try:
        model = kind(
            str(files.folder),
            device=device,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            model_kwargs={"dtype": getattr(torch, settings["dtype"])},
        )
        refuse_random_weights(model, files.name)
    except BgeEvalError:
        raise
    except (OSError, ImportError) as error:
        raise MissingError(
            f"sentence-transformers could not load {files.name} ({one_line(error)})."
        ) from error
    except Exception as error:  # modules raise anything for files that do not fit
        raise DamagedError(
            f"sentence-transformers could not load {files.name} from {files.folder}"
            f" ({type(error).__name__}: {one_line(error)})."
        ) from error
    if "max_length" in settings:
        model.max_seq_length = settings["max_length"]
    registered = registered_meta(files.name)
    prompts = registered.loader_kwargs.get("model_prompts") if registered is not None else None
    return wrapped(model, prompts)


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
