"""The whole identity of a result: what it must share with another to be the same experiment."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bge_eval.runtime.devices import may_have_accelerator

SCORING_PACKAGES = (
    "bge-eval",
    "mteb",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "faiss-gpu",
    "pytrec-eval-terrier",
)
"""Packages whose version can change a score."""
_OTHER_PACKAGES = ("datasets", "faiss-cpu", "huggingface-hub", "sentence-transformers")


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything that a score depends on. Equal identities give equal scores."""

    task: str
    """mteb's task name."""
    task_revision: str
    """The revision of the task in mteb."""
    model: dict[str, Any]
    """Name, revision, settings and the prompts used in this task."""
    data: dict[str, Any]
    """Layout, fingerprint, splits and subsets."""
    search: dict[str, Any]
    """Index kind, depth, and whether a document with the query's own id is removed."""
    reranker: dict[str, Any] | None = None
    """The second stage, if there is one."""
    packages: dict[str, str] = field(default_factory=dict)
    """Versions of the packages that can change a score."""

    def as_dict(self) -> dict[str, Any]:
        """Return the identity as plain JSON values."""
        result: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return result

    @property
    def digest(self) -> str:
        """Return 16 hexadecimal digits that differ whenever anything in it differs."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def packages(*others: str) -> dict[str, str]:
    """Return the versions of the packages that a score can depend on.

    Args:
        others: packages that run this model or reranker, besides those of every run.
    """
    return _versions((*SCORING_PACKAGES, *others))


def environment() -> dict[str, Any]:
    """Return the machine and the versions a run was made with, for the record only."""
    names: list[str] = []
    if may_have_accelerator():
        import torch

        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": names,
        "packages": _versions((*SCORING_PACKAGES, *_OTHER_PACKAGES)),
    }


def differences(ours: dict[str, Any], theirs: dict[str, Any], path: str = "") -> list[str]:
    """Name what differs between two identities, e.g. ``["model.dtype", "data.fingerprint"]``."""
    found = []
    for key in sorted(set(ours) | set(theirs)):
        name = f"{path}.{key}" if path else key
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, dict) and isinstance(other, dict):
            found += differences(mine, other, name)
        elif mine != other:
            found.append(name)
    return found


def _versions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 (a kernel table)
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
