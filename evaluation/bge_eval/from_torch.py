"""Torch models as OpenVINO's, by tracing; nothing else here needs torch's compiler."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch

# OpenVINO reports its import to its makers over the network, unless it finds no reporter.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402
from openvino.frontend import FrontEndManager  # noqa: E402
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: E402


class _Single(torch.nn.Module):
    """A model with a single output, and inputs by position."""

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...], output: str) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.output = output

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = getattr(
            self.model(**dict(zip(self.names, inputs, strict=True))), self.output
        )
        return result


def convert(model: torch.nn.Module, names: tuple[str, ...], output: str) -> Any:
    """Return OpenVINO's model of a transformer.

    Args:
        model: the transformer, on the CPU.
        names: its inputs, each ``(batch, tokens)`` int64.
        output: name of the output to give.
    """
    example = tuple(torch.ones(2, 8, dtype=torch.long) for _ in names)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # what tracing does not see, the comparison does
        decoder = TorchScriptPythonDecoder(_Single(model, names, output), example_input=example)
    frontend = FrontEndManager().load_by_framework("pytorch")
    converted = frontend.convert(frontend.load(decoder))
    for port, name in zip(converted.inputs, names, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
        port.get_node().set_element_type(openvino.Type.i64)
    converted.validate_nodes_and_infer_types()
    return converted
