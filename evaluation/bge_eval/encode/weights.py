"""The files of weights in a model's folder, checked before a library reads them.

The accidents of copied folders: Git LFS pointers, empty and cut files, and indexes that name files
which are elsewhere. Libraries answer them with messages of their inner workings, or not at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bge_eval.encode.config import read_object, refuse_pointer
from bge_eval.errors import DamagedError

_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin")
LONGEST_HEADER = 2**25
"""Bytes of a safetensors header: 300,000 tensors. The format allows three times as much, which
would take gigabytes as objects."""
_PICKLES = (b"PK\x03\x04", b"\x80")
"""The first bytes of torch's files: a zip, and before torch 1.6 a pickle."""


def check_weights(folder: Path) -> None:
    """Refuse damaged files of weights.

    Args:
        folder: the transformer's folder, or a module's.

    Raises:
        DamagedError: a file is a Git LFS pointer, empty, cut or of another format; or an index
            names a file that is not in the folder.
    """
    for path in _files(folder):
        _check_file(path)


def _files(folder: Path) -> list[Path]:
    """Return the files that are loaded: those of torch only where there are no safetensors."""
    files = [folder / name for name in _SINGLE if (folder / name).is_file()]
    for name in _INDEXES:
        files += [path for path in _shards(folder / name) if path not in files]
    safetensors = [path for path in files if path.suffix == ".safetensors"]
    return safetensors or files


def _shards(index: Path) -> list[Path]:
    """Return the files that an index names, in order."""
    if not index.is_file():
        return []
    by_weight = read_object(index).get("weight_map")
    if not isinstance(by_weight, dict) or not by_weight:
        raise DamagedError(f"{index} has no weight_map, which names the file of each weight.")
    shards: dict[str, Path] = {}
    for name in by_weight.values():
        path = index.parent / str(name)
        if not isinstance(name, str) or "/" in name or "\\" in name or name in ("", ".", ".."):
            raise DamagedError(
                f"{index} names {name!r}, which is not a file of its own folder. An index names"
                " files beside it, such as model-00001-of-00002.safetensors."
            )
        if not path.is_file():
            raise DamagedError(f"{index} names {name}, which is not in the folder {index.parent}.")
        shards[name] = path
    return list(shards.values())


def _check_file(path: Path) -> None:
    size = path.stat().st_size
    if size == 0:
        raise DamagedError(f"{path} is empty. Copy or download the model again.")
    with path.open("rb") as file:
        start = file.read(64)
        refuse_pointer(path, start)
        if path.suffix == ".safetensors":
            header = start[:8]
            length = int.from_bytes(header, "little")
            file.seek(8)
            if LONGEST_HEADER < length <= size:
                raise DamagedError(
                    f"{path} has a header of {length:,} bytes; no model has more than"
                    f" {LONGEST_HEADER // 2**20} MiB. Such a file is made to fill memory, and is"
                    " not read."
                )
            content = file.read(length) if length <= size else b""
            _check_safetensors(path, size, 8 + length, content)
        elif not start.startswith(_PICKLES):
            raise DamagedError(f"{path} is not a file of torch (it starts with {start[:8]!r}).")


def _check_safetensors(path: Path, size: int, begin: int, header: bytes) -> None:
    """Refuse a safetensors file whose header or length is wrong.

    Args:
        path: the file.
        size: its bytes.
        begin: where the tensors begin.
        header: the JSON before them; empty where its stated length cannot be.
    """
    try:
        tensors: Any = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name[:2] != "__"]
        expected = begin + max(map(int, ends), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise DamagedError(
            f"{path} is not a safetensors file, or was cut in its header ({size} bytes). Copy or"
            " download the model again."
        ) from error
    if size < expected:
        raise DamagedError(
            f"{path} was cut: it has {size} bytes of {expected}. Copy or download the model again."
        )
