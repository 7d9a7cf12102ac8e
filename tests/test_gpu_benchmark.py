"""The benchmark for a lent GPU runs whole before there is one: every path of it, on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_contender_runs_and_gives_the_same_vectors(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--device", "cpu", "--quick"]
    paths = os.pathsep.join([str(ROOT / "evaluation"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, "--output", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    encoder, decoder = json.loads((tmp_path / "gpu.json").read_text("utf-8"))["shapes"]
    expected = {"unpadded", "padded", "peer", "float32", "mteb"}
    # torch.compile needs a C++ compiler; without one the page says so.
    assert expected <= set(encoder["contenders"]) <= expected | {"compiled"}
    assert set(decoder["contenders"]) == {"unpadded", "padded"}
    for entry in (encoder, decoder):
        for figures in entry["contenders"].values():
            assert figures["least_cosine"] > 0.999 and figures["tokens_per_second"] > 0
    assert any("by_equal_lengths" in note for note in encoder["notes"])
    page = (tmp_path / "gpu.md").read_text("utf-8")
    assert "bge-eval bfloat16, no padding" in page and "published, through HTTP" in page
