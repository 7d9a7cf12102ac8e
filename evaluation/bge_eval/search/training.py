"""How many documents faiss needs to build an index."""

from __future__ import annotations

from typing import Any

from bge_eval.search.factory import parts_of

_ROTATION_CENTROIDS = 256
"""Centroids of the 8-bit product quantizer by which an OPQ finds its rotation."""


def least_documents(index: Any) -> int:
    """Return the fewest documents over which faiss builds an index; with one fewer it may fail.

    A clustering needs a vector for each centroid (https://github.com/facebookresearch/faiss,
    Clustering.cpp), a principal component analysis one for each of its components. More are
    better, which faiss advises itself while it trains.

    Args:
        index: an empty index of faiss, as `bge_eval.search.factory.made` returns it.
    """
    faiss = _faiss()
    if isinstance(index, faiss.IndexBinary):
        return max(1, getattr(index, "nlist", 1))
    return max(_least(part) for part in parts_of(index))


def _faiss() -> Any:
    """Return the module ``faiss``, whose annotations lack what its classes inherit and hold."""
    import faiss

    return faiss


def _least(part: Any) -> int:
    """Return the documents that one part of an index needs, of the parts inside it none."""
    faiss = _faiss()
    needs = [1]
    if isinstance(part, faiss.IndexIVF):
        needs.append(part.nlist)
    if isinstance(part, faiss.Index2Layer):
        needs.append(part.q1.nlist)
    if isinstance(part, faiss.IndexNSG):
        # It lists for every document so many neighbours, and ends the process where the corpus
        # has hardly more: of random ones of 101 to 118 documents many did.
        needs.append(2 * part.nndescent_L)
    if hasattr(part, "pq"):
        needs.append(part.pq.ksub)
    if hasattr(part, "rq"):
        needs.append(_least_of_residuals(part.rq))
    if hasattr(part, "prq"):
        blocks = [part.prq.subquantizer(number) for number in range(part.prq.nsplits)]
        needs += [_least_of_residuals(faiss.downcast_Quantizer(block)) for block in blocks]
    if isinstance(part, faiss.IndexPreTransform):
        steps = [part.chain.at(number) for number in range(part.chain.size())]
        needs += [_least_of_step(faiss.downcast_VectorTransform(step)) for step in steps]
    return int(max(needs))


def _least_of_residuals(quantizer: Any) -> int:
    """Return the vectors for a residual quantizer, which clusters in principal components."""
    bits = [quantizer.nbits.at(number) for number in range(quantizer.nbits.size())]
    return int(max(quantizer.d, *(1 << each for each in bits)))


def _least_of_step(step: Any) -> int:
    """Return the vectors for a transformation."""
    faiss = _faiss()
    if isinstance(step, faiss.OPQMatrix):
        return _ROTATION_CENTROIDS
    if isinstance(step, faiss.PCAMatrix | faiss.ITQTransform):
        return int(step.d_out)
    return 1
