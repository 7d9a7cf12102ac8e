"""What faiss writes to stderr by itself: collected, so that one sentence of ours can replace it."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_SMALL = re.compile(
    rb"WARNING clustering (\d+) points to (\d+) centroids: please provide at least (\d+)[^\n]*\n"
)


class Advice:
    """What faiss advises about the sample that it trains on."""

    trained: int = 0
    """Documents that it was trained on; 0 if it advised nothing."""
    advised: int = 0
    """The documents that it would have needed."""


@contextmanager
def clustering_advice() -> Iterator[Advice]:
    """Yield the advice that faiss gives inside, which then does not reach stderr.

    faiss writes a line for each of its clusterings, hundreds for one OPQ. Everything else that
    reaches the process's stderr meanwhile is written when the block ends.
    """
    advice = Advice()
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # the process has no stderr
        yield advice
        return
    with tempfile.TemporaryFile(prefix="bge-eval-") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield advice
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            written = file.read()
            for points, _, needed in _SMALL.findall(written):
                if int(needed) > advice.advised:
                    advice.trained, advice.advised = int(points), int(needed)
            rest = _SMALL.sub(b"", written)
            if rest:
                os.write(2, rest)
