"""Factory strings of faiss: the empty index that one names, and what is refused.

https://github.com/facebookresearch/faiss/wiki/The-index-factory lists the strings. faiss ends the
process, or computes for hours, on sizes that make no index; they are refused here by their numbers.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

from bge_eval.errors import MissingError, UsageError, one_line
from bge_eval.search.index import IndexOptions, Precision

TRAINING = 500_000
"""Most documents that an index is trained on, drawn with seed 0."""
_CODES = {Precision.INT8: "SQ8_direct_signed", Precision.FLOAT16: "SQfp16"}
"""faiss's codes that hold a representation's values exactly, in as many bytes as they need."""
_WHOLE = re.compile(r"(?P<lists>HNSW\d+|IVF\d+(_HNSW\d+)?)?,?(?P<codes>Flat)?")
"""Factory strings of indexes that hold vectors whole."""
_QUANTIZER = re.compile(r"(?:^|,)(RCQ|LSCQ)\d")
"""Factory strings of faiss's coarse quantizers, which are no index of their own."""
_BINARY = re.compile(r"B(HNSW\d+|IVF\d+(_HNSW\d+)?|Flat|Hash\d+(x\d+)?)")
"""Factory strings of binary indexes: faiss takes any that begins so, whatever follows."""
_SIZES = (
    (re.compile(r"HNSW(\d+)"), 2, 1024, "the number of a document's links"),
    (re.compile(r"NSG(\d+)"), 8, 1024, "the number of a document's links"),
    (re.compile(r"IVF(\d+)"), 1, TRAINING, "the number of lists"),
    (
        re.compile(r"(?<!BHash)(?:PQ|RQ|LSQ|RCQ|_)\d+(?:x\d+)?x(\d+)(?![\dx])"),
        1,
        16,
        "the number of bits",
    ),
    (re.compile(r"[A-Za-z_(](\d+)"), 1, 1 << 16, "a size"),
)
"""Numbers of a factory string: where they stand, the least and the greatest, what they are."""
_DIVISORS = re.compile(r"(?:PQ|PRQ|PLSQ)(\d+)")
"""Numbers that the dimension must be a multiple of."""
_OUTPUTS = re.compile(r"(?:PCA[RW]*|RR|ITQ|OPQ\d+_)(\d+)")
"""Dimensions after a transformation."""
_WORDS = (
    "HNSW", "NSG", "IVF", "RFlat", "Flat", "OPQ", "PQ", "SQ", "SQfp16", "SQbf16", "PCAR", "PCAW",
    "PCA", "RR", "ITQ", "L2norm", "RaBitQ", "Refine", "LSQ", "PRQ", "RQ",
    "BHNSW", "BIVF", "BFlat", "BHash",
)  # fmt: skip
"""Words of factory strings, to name the one that was meant."""
_INNER = ("index", "base_index", "refine_index", "quantizer", "storage")
"""Attributes of an index that hold another."""


def made(options: IndexOptions, dimension: int | None = None) -> Any:
    """Return an empty index that compares by inner product, or by Hamming distance if binary.

    Args:
        options: the factory string and the representation of the vectors.
        dimension: of the vectors; None where it is not known yet.

    Raises:
        MissingError: faiss is not installed.
        UsageError: faiss cannot make the index, or it does not compare by inner product.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingError(
            f"--index {options.name} needs a package that is not installed: pip install"
            " 'bge-eval[faiss]'"
        ) from error
    _check_name(options)
    _check_dimension(options, dimension)
    width = _least_dimension(options) if dimension is None else dimension
    try:
        index = _by_faiss(options, stored_as(options), width)
    except (RuntimeError, MemoryError) as error:
        raise UsageError(
            f"faiss makes no index of '{options.name}' {_compared(options)}"
            f"{'' if dimension is None else f' of {dimension} dimensions'}: {reason(error)}."
            f"{_meant(options, width)} Name flat, or one of faiss's factory strings, such as"
            " HNSW32, IVF1024,Flat, IVF1024,PQ48x4fs or SQ8."
        ) from error
    if is_binary(options):
        return index
    for part in parts_of(index):
        if hasattr(part, "do_polysemous_training"):
            # It numbers the centroids for a search by Hamming distances, which is not used, and
            # takes most of the time of a small corpus; the distances are the same without.
            part.do_polysemous_training = False
        if part.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise UsageError(
                f"--index {options.name} does not compare by inner product: faiss makes its"
                f" {type(part).__name__} for L2 distances alone. Name another index, such as"
                " HNSW32_SQ8, HNSW32 or IVF1024,PQ48x4fs."
            )
    if stored_as(options) != options.name and hasattr(index, "by_residual"):
        index.by_residual = False  # a difference from a centroid is no whole number
    return index


def stored_as(options: IndexOptions) -> str:
    """Return the factory string with codes of the representation, where vectors are held whole."""
    if is_binary(options):
        name = options.name if options.name == "Flat" else options.name.removesuffix(",Flat")
        return name if name.startswith("B") else f"B{name}"
    whole = _WHOLE.fullmatch(options.name)
    codes = _CODES.get(options.precision)
    if whole is None or codes is None or not options.name:
        return options.name
    return f"{whole['lists']},{codes}" if whole["lists"] else codes


def is_binary(options: IndexOptions) -> bool:
    """Return whether an index holds bits and compares by Hamming distance."""
    return options.precision is Precision.BINARY or _BINARY.fullmatch(options.name) is not None


def parts_of(index: Any) -> list[Any]:
    """Return an index with the indexes inside it, each as its own class."""
    import faiss

    index = faiss.downcast_index(index)
    parts = [index]
    for name in _INNER:
        inner = getattr(index, name, None)
        if inner is not None:
            parts += parts_of(inner)
    return parts


def reason(error: Exception) -> str:
    """Return faiss's message without its C++ signature and file."""
    text = one_line(error)
    text = re.sub(r"^Error in .*? at \S+:\d+: ", "", text).rpartition("Error: ")[2]
    return re.sub(r"^'.*' failed: (?=.)", "", text).strip().rstrip(".")


def _by_faiss(options: IndexOptions, name: str, dimension: int) -> Any:
    import faiss

    if is_binary(options):
        if not _BINARY.fullmatch(name):
            raise RuntimeError("binary indexes are BFlat, BHNSW32, BIVF64, BIVF64_HNSW32, BHash16")
        return faiss.index_binary_factory(dimension, name)
    return faiss.index_factory(dimension, name, faiss.METRIC_INNER_PRODUCT)


def _check_name(options: IndexOptions) -> None:
    """Refuse strings that faiss takes and cannot honour here.

    Raises:
        UsageError: the string names such an index, or a size is out of its range.
    """
    name = options.name
    if _BINARY.fullmatch(name) and options.precision not in (Precision.FLOAT32, Precision.BINARY):
        raise UsageError(
            f"--index {name} holds binary vectors, not {options.precision}: leave out --vectors."
        )
    if "IDMap" in name:
        raise UsageError(
            f"--index {name}: IDMap keeps ids beside the vectors, and a corpus has its own. Leave"
            " IDMap out."
        )
    if "SQ8_direct" in name:
        raise UsageError(
            f"--index {name}: SQ8_direct keeps whole numbers, and embeddings have none. Name"
            " --vectors int8, with --index flat, HNSW32 or IVF1024,Flat."
        )
    quantizer = _QUANTIZER.search(name)
    if quantizer:
        raise UsageError(
            f"--index {name}: {quantizer[1]} only assigns documents to lists, and holds none. Name"
            f" it inside an index of lists, such as IVF1024({quantizer[1]}2x5),Flat."
        )
    for pattern, least, most, what in _SIZES:
        for number in map(int, pattern.findall(name)):
            if not least <= number <= most:
                raise UsageError(
                    f"--index {name}: {what} is {number}; expected {least} to {most:,}."
                )


def _check_dimension(options: IndexOptions, dimension: int | None) -> None:
    """Refuse dimensions that faiss would refuse after the encoding, if at all.

    Raises:
        UsageError: a transformation gives more than there are, or bits do not fill bytes.
    """
    if is_binary(options) and dimension is not None and dimension % 8:
        raise UsageError(
            f"--index {options.name}: faiss packs eight signs into a byte, and the vectors have"
            f" {dimension} dimensions. Name a multiple of 8, or other --vectors."
        )
    for number in map(int, re.findall(r"PCA[RW]*(\d+)", options.name)):
        if dimension is not None and number > dimension:
            raise UsageError(
                f"--index {options.name}: the vectors have {dimension} dimensions, and PCA cannot"
                f" give {number} of them."
            )


def _least_dimension(options: IndexOptions) -> int:
    """Return a dimension that a factory string can be tried with."""
    step = math.lcm(8, *map(int, _DIVISORS.findall(options.name)))
    outputs = list(map(int, _OUTPUTS.findall(options.name)))
    least = max([4096 if is_binary(options) else 1, *outputs])
    return step * math.ceil(least / step)


def _compared(options: IndexOptions) -> str:
    return "for binary vectors" if is_binary(options) else "for inner products"


def _meant(options: IndexOptions, dimension: int) -> str:
    """Return a question with the string in faiss's spelling; "" if faiss does not know it."""
    name = re.sub(r"\s", "", options.name)
    for word in _WORDS:
        name = re.sub(rf"(?<![A-Za-z]){word}(?![a-z])", word, name, flags=re.IGNORECASE)
    with suppress(RuntimeError):
        if name != options.name:
            meant = replace(options, name=name)
            _by_faiss(meant, stored_as(meant), dimension)
            return f" Did you mean '{name}'?"
    return ""
