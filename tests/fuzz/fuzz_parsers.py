"""Fuzz every parser, guided by coverage: python tests/fuzz/fuzz_parsers.py -max_total_time=60.

The first byte of an input chooses the parser. Anything but a value or one of our errors is a
crash, which libFuzzer writes to a file; give that file as the argument to see it again.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

with atheris.instrument_imports(include=["bge_eval"]):
    from test_parsers import READERS, read_or_refused

KINDS = sorted(READERS)


def one_input(data: bytes) -> None:
    """Read one content with the parser that its first byte names."""
    if not data:
        return
    name, read = READERS[KINDS[data[0] % len(KINDS)]]
    content = data[1:]
    read_or_refused(name, read, gzip.compress(content) if name.endswith(".gz") else content)


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-timeout=10", "-rss_limit_mb=4096"], one_input)
    atheris.Fuzz()
