"""How this processor multiplies 8-bit numbers, tried rather than looked up.

Without VNNI or AMX, x86 adds pairs of 8-bit products in 16 bits, where large sums saturate
(``vpmaddubsw``). int8 models then compute other vectors than on other processors.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from bge_eval.runtime.openvino_library import openvino

_LARGEST = (255.0, 127.0)
"""The largest unsigned and signed 8-bit numbers that models are quantised to."""
_SHAPE = (16, 64, 32)
"""Rows, inputs and outputs of the product that is tried."""


@cache
def saturates() -> bool:
    """Return whether OpenVINO's 8-bit products overflow on this processor; takes 0.05 s."""
    rows, inputs, outputs = _SHAPE
    ops = openvino.opset13

    def quantized(source: object, low: float, high: float, levels: int) -> object:
        ends = [ops.constant(np.float32(end)) for end in (low, high, low, high)]
        return ops.fake_quantize(source, *ends, levels)

    unsigned, signed = _LARGEST
    parameter = ops.parameter([rows, inputs], np.float32)
    weights = ops.constant(np.full((outputs, inputs), signed, np.float32))
    product = ops.matmul(
        quantized(parameter, 0.0, unsigned, 256),
        quantized(weights, -signed, signed, 255),
        False,
        True,
    )
    model = openvino.Model([ops.result(product)], [parameter], "largest product")
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    actual = compiled([np.full((rows, inputs), unsigned, np.float32)])[0]
    return not np.allclose(actual, unsigned * signed * inputs, rtol=1e-3)
