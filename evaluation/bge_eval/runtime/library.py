"""Load a folder with the class of sentence-transformers that its files name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bge_eval.encode.body import tokenizer_options
from bge_eval.encode.config import CONFIG, MODULES, read_object, transformer_folder
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.modules import Library, library_of, modules_of
from bge_eval.encode.positions import own_positions
from bge_eval.encode.weights import check_weights
from bge_eval.errors import BgeEvalError, DamagedError, MissingError, UsageError, one_line
from bge_eval.progress import quiet_transformers


def refuse_foreign_modules(files: ModelFiles, *, trust_remote_code: bool) -> None:
    """Refuse modules that are not sentence-transformers' own, unless their code may run.

    Raises:
        UsageError: a module's code comes with the model.
        DamagedError: a multi-vector model has no modules; its projection would be random.
    """
    modules = modules_of(files.folder)
    own_layout = "HF_ColBERT" in (read_object(files.folder / CONFIG).get("architectures") or [])
    if modules is None and library_of(files.folder) is Library.MULTI_VECTOR and not own_layout:
        raise DamagedError(
            f"{files.folder / MODULES} is missing, so the projection of the token vectors would"
            " be random. Copy the whole folder of the model."
        )
    for module in modules or []:
        own = module.reference.startswith(("sentence_transformers.", "pylate."))
        if not own and not trust_remote_code:
            raise UsageError(
                f"{files.name} has the module {module.reference}, whose Python code comes with the"
                " model and does not run by default. If you trust its authors, add"
                " --trust-remote-code."
            )


def library_positions(files: ModelFiles) -> dict[str, str]:
    """Return the fact of a folder whose vectors once depended on the batch; {} for others.

    Raises:
        DamagedError: a file is damaged.
    """
    return own_positions(files, tokenizer_options(transformer_folder(files.folder)))


def load_library(
    files: ModelFiles,
    *,
    device: str,
    dtype: str,
    trust_remote_code: bool,
    note: Callable[[str], None] = lambda text: None,
) -> Any:
    """Return a folder's ``SentenceTransformer``, ``SparseEncoder`` or ``MultiVectorEncoder``.

    Args:
        files: the model's files.
        device: torch's device.
        dtype: the precision, such as "float32".
        trust_remote_code: run Python code from the model's repository.
        note: is told that batches are computed in parts.

    Raises:
        MissingError: a package or a file is missing.
        DamagedError: the files are damaged, or lack weights.
    """
    import sentence_transformers
    import torch
    from transformers import PreTrainedModel

    from bge_eval.runtime.fitting import Fitting
    from bge_eval.runtime.library_parts import run_in_parts
    from bge_eval.runtime.loading import outermost, refuse_random_weights
    from bge_eval.runtime.own_positions import number_own_tokens

    library = library_of(files.folder)
    kind = getattr(sentence_transformers, library, None)
    if kind is None:
        raise MissingError(
            f"{files.name} is a {library}, which needs a newer package: pip install -U"
            " sentence-transformers"
        )
    for path in [files.folder, *(item for item in files.folder.iterdir() if item.is_dir())]:
        check_weights(path)
    try:
        with quiet_transformers():
            model = kind(
                str(files.folder),
                device=device,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                model_kwargs={"dtype": getattr(torch, dtype)},
            )
            refuse_random_weights(model, files.name)
            if getattr(getattr(model, "tokenizer", None), "padding_side", None) == "left":
                for each in outermost(model, PreTrainedModel):
                    number_own_tokens(each)
            run_in_parts(model, Fitting(files.name, note))
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
    return model
