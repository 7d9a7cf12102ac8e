"""Identity of a result: two results of equal identity are the same experiment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bge_eval.results.cut import Cut, split_name

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


_INDEX_FACTS = ("vectors", "rescore_top", "index_depth", "parts")
"""Keys of an identity's ``search`` by which it is no exact search over float32 vectors."""


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
    """Layout, fingerprint, splits and subsets; the cut, where it is not the whole task."""
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
    def dtype(self) -> str:
        """Return the precision of the model, or "".

        An int8 without calibration texts is torch's, which has another name today.
        """
        dtype = str(self.model.get("dtype") or "")
        calibrated = "pooling" not in self.model or self.model.get("calibration")
        return dtype if dtype != "int8" or calibrated else "int8-dynamic"

    @property
    def cut(self) -> Cut:
        """Return what of the task was scored; an empty cut for the whole of it."""
        return split_name(f"{self.task}@{self.data.get('cut') or ''}")[1]

    @property
    def filed(self) -> str:
        """Return the name under which the result is filed: the task's, with the cut."""
        return self.cut.named(self.task)

    @property
    def layout(self) -> str:
        """Return the layout of the data ("hub", "beir", "aggregate" …), or ""."""
        return str(self.data.get("layout") or "")

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the data, or ""."""
        return str(self.data.get("fingerprint") or "")

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the splits that were scored, or () if they are not recorded."""
        return tuple(self.data.get("splits") or ())

    @property
    def subsets(self) -> tuple[str, ...]:
        """Return the subsets that were scored, or () if they are not recorded."""
        return tuple(self.data.get("subsets") or ())

    @property
    def index(self) -> str:
        """Return the kind of index, or "" for a task that searches nothing."""
        return str(self.search.get("index") or "")

    @property
    def is_exact(self) -> bool:
        """Return whether every document was compared, by vectors as the model gives them."""
        return self.index in ("", "flat") and not any(self.search.get(n) for n in _INDEX_FACTS)

    @property
    def depth(self) -> int:
        """Return the number of documents retrieved for a query, 0 if nothing is searched."""
        return int(self.search.get("top_k") or 0)

    @property
    def drops_identical_ids(self) -> bool | None:
        """Return whether documents with the query's own id are dropped; None if unknown."""
        return self.search.get("drop_identical_ids")

    @property
    def digest(self) -> str:
        """Return a digest of the identity, 16 hexadecimal digits."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def index_name(search: Mapping[str, Any]) -> str:
    """Return for people how documents were searched, e.g. ``HNSW32, efSearch=64, vectors=int8``.

    Args:
        search: the identity's ``search``; see `bge_eval.search.index.IndexOptions.identity`.
    """
    params = search.get("index_params") or {}
    facts = {name: search[name] for name in _INDEX_FACTS if name in search}
    parts = [str(search.get("index") or "flat")]
    parts += [stated(name, value) for name, value in {**params, **facts}.items()]
    return ", ".join(parts)


def stated(name: str, value: object) -> str:
    """Return a setting for people, e.g. ``efSearch=64``; whole numbers have no decimals."""
    whole = isinstance(value, float) and value.is_integer()
    return f"{name}={value:.0f}" if whole else f"{name}={value}"


def packages(*others: str) -> dict[str, str]:
    """Return the versions of the packages that a score can depend on.

    Args:
        others: further packages that this model or reranker runs on.
    """
    return versions((*SCORING_PACKAGES, *others))


def differences(first: dict[str, Any], second: dict[str, Any], path: str = "") -> list[str]:
    """Return the fields that two identities differ in, e.g. ``["model.dtype"]``."""
    fields = []
    for key in sorted(set(first) | set(second)):
        name = f"{path}.{key}" if path else key
        one, other = first.get(key), second.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            fields += differences(one, other, name)
        elif one != other:
            fields.append(name)
    return fields


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    installed = {}
    for name in names:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed
