"""Exports a tiny model to ``onnx/model.onnx``, as BGE's repositories have one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


def export_onnx(folder: Path, model: Any, output: str) -> None:
    """Write the file of a model of transformers.

    Args:
        folder: the model's folder.
        model: the model, loaded with eager attention.
        output: what the file gives: ``last_hidden_state`` or ``logits``.
    """
    import torch

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model.eval()

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            outputs = self.model(**dict(zip(INPUTS, inputs, strict=True)))
            tensor: torch.Tensor = outputs[output]
            return tensor

    axes = {name: {0: "batch", 1: "tokens"} for name in INPUTS}
    axes[output] = {0: "batch"} if output == "logits" else {0: "batch", 1: "tokens"}
    (folder / "onnx").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Exported(),
            tuple(torch.ones(2, 8, dtype=torch.long) for _ in INPUTS),
            str(folder / "onnx" / "model.onnx"),
            input_names=INPUTS,
            output_names=[output],
            dynamic_axes=axes,
            dynamo=False,
        )
