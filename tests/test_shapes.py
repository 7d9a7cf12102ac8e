"""A model compiled for one shape of batch changes no bit, and is used only where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bge_eval.encode.settings import Backend, Dtype, Overrides
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.runtime import openvino_shapes
from bge_eval.runtime.backends import openvino_supports
from bge_eval.runtime.converted import Conversion
from bge_eval.runtime.openvino_shapes import OFTEN, FrequentShapes

WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "rain", "fell", "over", "hills"]
BATCH = 4
TOKENS = 128


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGE_EVAL_CACHE", str(tmp_path / "cache"))


def texts() -> list[str]:
    """Long texts, cut at the maximum length, for more batches than make a shape frequent."""
    generator = np.random.default_rng(0)
    count = BATCH * (OFTEN + 6)
    return [" ".join(generator.choice(WORDS, 3 * TOKENS)) for _ in range(count)] + ["a cat", "rain"]


def encoder(folder: Path, dtype: str = "float32") -> Any:
    overrides = Overrides(dtype=Dtype(dtype), max_length=TOKENS)
    options = ModelOptions(
        device="cpu",
        backend=Backend.OPENVINO,
        store=False,
        batch_tokens=BATCH * TOKENS,
        overrides=overrides,
    )
    return EncoderModel(str(folder), options).encoder


@pytest.fixture
def compiled_shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that models are compiled for."""
    shapes: list[tuple[int, ...]] = []
    real = Conversion.compiled

    def compiled(self: Conversion, *given: Any, **named: Any) -> Any:
        shapes.extend([named["shape"]] if named.get("shape") else [])
        return real(self, *given, **named)

    monkeypatch.setattr(Conversion, "compiled", compiled)
    return shapes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_frequent_shape_changes_no_bit(
    tiny_bge: Path,
    dtype: str,
    compiled_shapes: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not openvino_supports(Dtype(dtype)):
        pytest.skip(f"no {dtype} here")
    mixed = encoder(tiny_bge, dtype)
    vectors = mixed.encode(texts())
    assert compiled_shapes == [(BATCH, TOKENS)]
    np.testing.assert_array_equal(mixed.encode(texts()), vectors)
    assert compiled_shapes == [(BATCH, TOKENS)]
    monkeypatch.setattr(openvino_shapes, "_MOST_BYTES", 0)
    np.testing.assert_array_equal(encoder(tiny_bge, dtype).encode(texts()), vectors)
    assert compiled_shapes == [(BATCH, TOKENS)]


def test_a_model_of_other_bits_is_not_used(tiny_bge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frequent: list[FrequentShapes] = []
    real = FrequentShapes.compile

    def other(self: FrequentShapes, shape: Any, inputs: Any, request: Any) -> None:
        """Compare with the output of another batch, as where a processor computes otherwise."""
        frequent.append(self)
        changed = {name: tokens.copy() for name, tokens in inputs.items()}
        changed["input_ids"][0, 5] += 1
        answering = type("Request", (), {})()
        answering.infer = lambda _: request.infer(changed)
        answering.get_output_tensor = request.get_output_tensor
        real(self, shape, inputs, answering)

    with monkeypatch.context() as patched:
        patched.setattr(FrequentShapes, "compile", other)
        vectors = encoder(tiny_bge).encode(texts())
    assert len(frequent) == 1
    assert frequent[0].compiled == {}
    np.testing.assert_array_equal(encoder(tiny_bge).encode(texts()), vectors)
