"""Search a faiss index on a GPU, where the installed faiss can and gives the same documents.

faiss has the flat, scalar-quantised, IVF and IVF-PQ indexes on GPUs
(https://github.com/facebookresearch/faiss/wiki/Faiss-on-the-GPU), and computes them by cuVS where
it was built with it. Graphs (HNSW, NSG) and refined indexes may have no equivalent there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bge_eval.records import Vectors
from bge_eval.search.factory import parts_of, reason

_PROBES = 32
"""Documents that are searched both ways before a copy on a GPU is used."""
_PLACES = 10
_LEAST_SHARED = 0.95
"""Least share of equal documents: near-equal scores may change places."""


def on_gpu(index: Any, name: str, probes: Vectors, note: Callable[[str], None]) -> Any:
    """Return a copy of an index on the first GPU; the index itself where that is impossible.

    Args:
        index: faiss's index, its search parameters set.
        name: the factory string, for remarks.
        probes: ``(n, dim)`` float32: vectors such as the queries; the first `_PROBES` are searched
            on both devices.
        note: receives why an index is searched on the CPU of a machine with a GPU.
    """
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus() or not len(probes):
        return index
    if unheeded := _unheeded(index):
        note(f"{name} is searched on the CPU: faiss has no {unheeded} on a GPU.")
        return index
    some = np.ascontiguousarray(probes[:_PROBES])
    by_cuvs = "CUVS" in faiss.get_compile_options()
    for use_cuvs in (True, False) if by_cuvs else (False,):
        try:
            copy = _copied(index, use_cuvs)
            _, computed = copy.search(some, _PLACES)
            break
        except RuntimeError as error:
            why = reason(error)
    else:
        note(f"{name} is searched on the CPU: faiss has no such index on a GPU ({why}).")
        return index
    _, expected = index.search(some, _PLACES)
    shared = sum(
        len(np.intersect1d(one[one >= 0], other[other >= 0]))
        for one, other in zip(computed, expected, strict=True)
    )
    share = shared / max(1, int((expected >= 0).sum()))
    if share >= _LEAST_SHARED:
        return copy
    note(
        f"{name} is searched on the CPU: on the GPU only {share:.0%} of the documents are its own."
    )
    return index


def _copied(index: Any, use_cuvs: bool) -> Any:
    """Return a copy of an index on the first GPU.

    Raises:
        RuntimeError: faiss has no such index there.
    """
    import faiss

    options = faiss.GpuClonerOptions()
    options.use_cuvs = use_cuvs  # faiss's cuVS has no scalar-quantised indexes, its own code has
    options.allowCpuCoarseQuantizer = True  # lists found by HNSW
    copy: Any = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index, options)
    copy.referenced_objects = [index]  # such a coarse quantizer stays the index's own
    return copy


def _unheeded(index: Any) -> str:
    """Return what faiss leaves out of a copy without an error; "" for nothing."""
    parts = parts_of(index)
    if any(getattr(part, "max_codes", 0) for part in parts):
        return "max_codes"
    if any(type(part).__name__ == "IndexIVFFlatDedup" for part in parts):
        return "lists of equal vectors"  # each of them would be lost but one
    return ""
