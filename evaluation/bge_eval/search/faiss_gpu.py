"""Search a faiss index on a GPU, where the installed faiss can and gives the same documents.

faiss has the flat, scalar-quantised, IVF and IVF-PQ indexes on GPUs
(https://github.com/facebookresearch/faiss/wiki/Faiss-on-the-GPU), and computes them by cuVS where
it was built with it. Graphs (HNSW, NSG) and refined indexes may have no equivalent there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bge_eval.errors import one_line
from bge_eval.records import Vectors

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
    try:
        options = faiss.GpuClonerOptions()
        options.use_cuvs = "CUVS" in faiss.get_compile_options()
        copy = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index, options)
        some = np.ascontiguousarray(probes[:_PROBES])
        (_, computed), (_, expected) = copy.search(some, _PLACES), index.search(some, _PLACES)
    except RuntimeError as error:
        reason = one_line(error).rpartition("Error: ")[2]
        note(f"{name} is searched on the CPU: faiss has no such index on a GPU ({reason}).")
        return index
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
