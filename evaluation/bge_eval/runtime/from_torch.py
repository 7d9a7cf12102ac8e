"""Convert torch models to OpenVINO by tracing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bge_eval.errors import one_line
from bge_eval.runtime.openvino_library import openvino


class ConversionError(Exception):
    """OpenVINO cannot convert a model; the message quotes OpenVINO's or torch's reason."""


class _Single(torch.nn.Module):
    """A model with positional inputs and a single output."""

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


class _FirstTokenLayer(torch.nn.Module):
    """A BERT-like layer that computes the first token's state only.

    The first token attends to all tokens, so keys and values are computed for all. The query, the
    attention output and the feed-forward part, five sixths of a layer's products, are computed for
    the first token only.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor | None = None, *_: Any, **__: Any
    ) -> torch.Tensor:
        inner, output = self.layer.attention.self, self.layer.attention.output
        first = hidden[:, :1]

        def heads(states: torch.Tensor) -> torch.Tensor:
            split = states.reshape(*states.shape[:2], -1, inner.attention_head_size)
            return split.transpose(1, 2)

        attended = torch.nn.functional.scaled_dot_product_attention(
            heads(inner.query(first)),
            heads(inner.key(hidden)),
            heads(inner.value(hidden)),
            attn_mask=None if mask is None else mask[:, :, :1],
        )
        attended = output(attended.transpose(1, 2).flatten(2), first)
        state: torch.Tensor = self.layer.output(self.layer.intermediate(attended), attended)
        return state


@contextmanager
def first_token_only(model: Any) -> Iterator[bool]:
    """Replace the last layer by one that computes the first token's state only.

    Args:
        model: a transformer; restored at the end of the context.

    Yields:
        Whether the last layer was replaced: it must have BERT's structure, as RoBERTa's has.
        The caller compares the outputs, as after every conversion.
    """
    layers: Any = getattr(getattr(model.base_model, "encoder", None), "layer", None)
    attention = getattr(layers[-1], "attention", None) if layers else None
    inner = getattr(attention, "self", None)
    if not all(hasattr(inner, name) for name in ("query", "key", "value", "attention_head_size")):
        yield False
        return
    whole = layers[-1]
    layers[-1] = _FirstTokenLayer(whole)
    try:
        yield True
    finally:
        layers[-1] = whole


def convert(model: torch.nn.Module, names: tuple[str, ...], output: str) -> Any:
    """Convert a transformer to an OpenVINO model.

    Args:
        model: the transformer, on the CPU.
        names: its inputs, each ``(batch, tokens)`` int64.
        output: name of the output to return.

    Raises:
        ConversionError: torch cannot trace the model, or OpenVINO cannot convert the trace.
    """
    try:
        return _traced(model, names, output)
    except Exception as error:  # tracing runs the model's own code, which can raise anything
        raise ConversionError(f"{type(error).__name__}: {one_line(error)}") from error


def _example(name: str) -> torch.Tensor:
    """Return one input to trace with, ``(2, 8)``: indices that every model has a vector for.

    RoBERTa and XLM-RoBERTa have one token type, so a 1 would lie beyond their vectors.
    """
    value = 0 if name == "token_type_ids" else 1
    return torch.full((2, 8), value, dtype=torch.long)


def _traced(model: torch.nn.Module, names: tuple[str, ...], output: str) -> Any:
    """Trace a model and convert the trace."""
    # Imported here, after `openvino_library` has switched OpenVINO's telemetry off.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = tuple(_example(name) for name in names)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        decoder = TorchScriptPythonDecoder(
            _Single(model, names, output),
            example_input=example,
            # The comparison with torch detects tracing errors; torch's own would trace it again.
            trace_kwargs={"check_trace": False},
        )
    frontend = FrontEndManager().load_by_framework("pytorch")
    converted = frontend.convert(frontend.load(decoder))
    for port, name in zip(converted.inputs, names, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
        port.get_node().set_element_type(openvino.Type.i64)
    converted.validate_nodes_and_infer_types()
    return converted
