"""Encoders from an ONNX file: torch's vectors, and an identity of the file's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bge_eval.encode.settings import Backend, Overrides, Pooling
from bge_eval.errors import DamagedError
from bge_eval.models.form import Form
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.suites.catalogue import plan
from conftest import make_encoder
from onnx_files import export_onnx
from test_backends import encoder, vectors
from test_encoder import TEXTS


@pytest.fixture
def with_onnx(tmp_path: Path, minilm_folder: Path) -> Path:
    """A tiny encoder with an ``onnx/model.onnx``."""
    from transformers import AutoModel

    folder = make_encoder(tmp_path / "with-onnx", minilm_folder, "cls")
    model = AutoModel.from_pretrained(folder, attn_implementation="eager")
    export_onnx(folder, model, "last_hidden_state")
    return folder


def test_another_onnx_file_is_another_model(with_onnx: Path, tmp_path: Path) -> None:
    def read(backend: str) -> EncoderModel:
        cls = Overrides(pooling=Pooling.CLS)
        return EncoderModel(
            str(with_onnx),
            ModelOptions(overrides=cls, backend=Backend(backend), store=tmp_path / "s"),
        )

    task = plan(["demo"])[0].task.metadata
    before, torch_s = read("onnx"), read("torch")
    assert "onnxruntime" in before.packages
    assert before.files.revision != torch_s.files.revision
    before._encode(["a text"], Form(), "encode")
    before.flush()
    path = with_onnx / "onnx" / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"last_hidden_state", b"last_hidden_other"))
    after = read("onnx")
    assert after.identity(task) != before.identity(task)
    assert read("torch").identity(task) == torch_s.identity(task)
    after._encode(["a text"], Form(), "encode")
    assert after.machine_settings()["backend"] == "onnx", "the other file's vectors were taken"


def test_an_onnx_file_that_takes_more_than_tokens_is_refused(with_onnx: Path) -> None:
    """Decoders are exported with positions; zeros for them would be silently wrong."""
    import onnx

    path = with_onnx / "onnx" / "model.onnx"
    model = onnx.load(path)
    [types] = [one for one in model.graph.input if one.name == "token_type_ids"]
    types.name = "position_ids"
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = "position_ids" if name == "token_type_ids" else name
    onnx.save(model, path)
    with pytest.raises(
        DamagedError, match=r"needs the input position_ids; bge-eval provides input_ids"
    ):
        encoder(with_onnx, "onnx")


def test_onnx_equals_torch(with_onnx: Path) -> None:
    pytest.importorskip("onnxruntime")
    loaded = encoder(with_onnx, "onnx")
    assert loaded.forward.backend == "onnx"
    np.testing.assert_allclose(loaded.encode(TEXTS), vectors(with_onnx, "torch"), atol=1e-5)
    (with_onnx / "onnx" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(DamagedError, match="not a readable ONNX model"):
        encoder(with_onnx, "onnx")
