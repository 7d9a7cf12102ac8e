"""Damaged and odd model folders: each is refused by one error that names what is wrong."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bge_eval.encode.modules import Library, library_of
from bge_eval.encode.settings import Backend, Overrides, Pooling
from bge_eval.errors import BgeEvalError, DamagedError, MissingError, NotReadyError, UsageError
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from conftest import CommandLine

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 133508397\n"
)
Change = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path, tiny_bge: Path) -> Path:
    """A copy of a tiny encoder that a test may damage."""
    return Path(shutil.copytree(tiny_bge, tmp_path / "model"))


def loaded(folder: Path, **overrides: Any) -> None:
    """Open a folder and load its weights, as the first text would."""
    options = ModelOptions(overrides=Overrides(**overrides), store=False)
    EncoderModel(str(folder), options).encoder  # noqa: B018


def text(name: str, content: str | bytes) -> Change:
    """Return a change that overwrites a file."""

    def change(folder: Path) -> None:
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)

    return change


def key(name: str, **values: Any) -> Change:
    """Return a change of keys in a JSON file; ``...`` removes a key."""

    def change(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        content = {**content, **values}
        kept = {name: value for name, value in content.items() if value is not ...}
        path.write_text(json.dumps(kept))

    return change


def weights(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Return a change of the tensors in ``model.safetensors``."""

    def apply(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return apply


def removed(*names: str) -> Change:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def cut(bytes_kept: int) -> Change:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:bytes_kept])

    return change


def index(shard: Any) -> Change:
    """Return a change to weights by an index that names one file."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        outside = folder.parent / "outside.safetensors"
        path.rename(outside)
        names = {"embeddings.word_embeddings.weight": shard}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))

    return change


def shifted(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("layer.1", "layer.9"): tensor for name, tensor in tensors.items()}


def with_layer(tensors: dict[str, Any]) -> dict[str, Any]:
    extra = tensors["encoder.layer.0.output.dense.weight"].clone()
    return {**tensors, "encoder.layer.0.adapter.down.weight": extra}


class Code:
    """A pickle of this object runs code when it is read without protection."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("executed-by-pickle"),)  # type: ignore[return-value]


def pickled(folder: Path) -> None:
    import torch

    (folder / "model.safetensors").unlink()
    torch.save({"encoder.weight": Code()}, folder / "pytorch_model.bin")


WEIGHTS = "model.safetensors"
ST = "sentence_bert_config.json"
POOLING = "1_Pooling/config.json"
NO_FLAGS = dict.fromkeys(("pooling_mode", "pooling_mode_cls_token"), ...)
CASES: dict[str, tuple[Change, str]] = {
    "pointer for weights": (text(WEIGHTS, POINTER), "is a Git LFS pointer.*git -C .* lfs pull"),
    "pointer for the tokenizer": (text("tokenizer.json", POINTER), "json is a Git LFS pointer"),
    "pointer for the configuration": (text("config.json", POINTER), "json is a Git LFS pointer"),
    "empty weights": (text(WEIGHTS, b""), "is empty"),
    "junk weights": (text(WEIGHTS, b"no weights" * 9), "is not a safetensors file"),
    "weights cut in the header": (cut(100), "cut in its header"),
    "weights cut in the tensors": (cut(200_000), r"was cut: it has 200000 bytes of \d+"),
    "an index outside the folder": (
        index("../outside.safetensors"),
        "not a file of its own folder",
    ),
    "an index of a missing file": (index("model-1.safetensors"), "is not in the folder"),
    "an index of a number": (index(3), "names 3"),
    "an index without a map": (text("model.safetensors.index.json", "{}"), "has no weight_map"),
    "a weight removed": (
        weights(lambda given: {k: v for k, v in given.items() if "layer.1" not in k}),
        "lacks weights",
    ),
    "a weight renamed": (weights(shifted), "lacks weights"),
    "a weight added": (weights(with_layer), r"no place for.*adapter\.down"),
    "fewer layers configured": (key("config.json", num_hidden_layers=1), "no place for.*layer.1"),
    "more layers configured": (key("config.json", num_hidden_layers=3), "lacks weights"),
    "another width configured": (
        key("config.json", hidden_size=32),
        "is for token vectors of 64 dimensions",
    ),
    "all weights zero": (
        weights(lambda given: {k: v * 0 for k, v in given.items()}),
        "are all zero",
    ),
    "pickled code": (pickled, "holds more than weights"),
    "a pickle of junk": (
        lambda folder: [removed(WEIGHTS)(folder), text("pytorch_model.bin", "junk")(folder)][1],
        "is not a file of torch",
    ),
    "a configuration in a list": (text("config.json", "[1]"), "holds a list"),
    "a binary configuration": (text("config.json", b"\xff\xfe\x00"), "is not text in UTF-8"),
    "a deep configuration": (text("config.json", "[" * 200_000), "is not readable JSON"),
    "a width in words": (
        key("config.json", hidden_size="wide"),
        r"config\.json cannot be used by transformers",
    ),
    "modules in an object": (text("modules.json", '{"0": {}}'), "is not a list"),
    "modules of numbers": (text("modules.json", "[1]"), "is not a list"),
    "no modules": (text("modules.json", "[]"), "is an empty list"),
    "a module without a type": (text("modules.json", '[{"path": ""}]'), "module 1 has no type"),
    "a module outside the folder": (
        text("modules.json", '[{"type": "a.Transformer", "path": "../x"}]'),
        "is outside",
    ),
    "no tokenizer": (
        removed("tokenizer.json", "tokenizer_config.json"),
        "has no tokenizer of its own",
    ),
    "a tokenizer of junk": (text("tokenizer.json", "{}"), "The tokenizer in .* cannot be read"),
    "a length of zero": (key(ST, max_seq_length=0), "max_seq_length is 0; expected a whole"),
    "a length in words": (key(ST, max_seq_length="512"), "max_seq_length is '512'"),
    "a length of true": (key(ST, max_seq_length=True), "max_seq_length is True"),
    "a tokenizer's length of zero": (
        lambda folder: [
            key(ST, max_seq_length=...)(folder),
            key("tokenizer_config.json", model_max_length=0)(folder),
        ][1],
        "model_max_length is 0",
    ),
    "an unknown option": (key(ST, max_length=9), "has the key 'max_length'.*max_seq_length"),
    "another tokenizer": (key(ST, tokenizer_name_or_path="org/x"), "takes the tokenizer from"),
    "options in a list": (key(ST, model_args=[1]), "model_kwargs is"),
    "no pooling folder": (removed(POOLING), "is missing, so the pooling is not defined"),
    "no pooling mode": (key(POOLING, **NO_FLAGS), "names no pooling"),
    "an unknown pooling": (key(POOLING, pooling_mode="median"), "pools by 'median'"),
    "a pooling of another width": (
        key(POOLING, embedding_dimension=768, word_embedding_dimension=...),
        "is for token vectors of 768 dimensions",
    ),
    "prompts in a list": (key("config_sentence_transformers.json", prompts=[1]), "prompts is"),
    "a dimension in words": (
        key("config_sentence_transformers.json", truncate_dim="all"),
        "truncate_dim is 'all'",
    ),
    "an unknown kind": (
        key("config_sentence_transformers.json", model_type="Odd"),
        "model_type 'Odd'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_one_clear_error(
    folder: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    change, message = CASES[case]
    change(folder)
    with pytest.raises(NotReadyError, match=f"(?s){message}") as raised:
        loaded(folder)
    assert raised.value.exit_code == 3
    assert "weights_only" not in str(raised.value)
    assert not (folder.parent / "executed-by-pickle").exists()


def test_the_sound_folder_is_accepted(folder: Path) -> None:
    loaded(folder)


@pytest.mark.parametrize("trusted", [False, True])
def test_remote_code_is_named_in_the_identity(folder: Path, trusted: bool) -> None:
    from bge_eval.suites.catalogue import plan

    options = ModelOptions(overrides=Overrides(), store=False, trust_remote_code=trusted)
    [planned] = plan(["SciFact"])
    identity = EncoderModel(str(folder), options).identity(planned.task.metadata)
    assert identity.get("remote_code", False) is trusted


def test_pickled_weights_are_checked_too(folder: Path) -> None:
    """A checkpoint of torch, whole, and with a weight less."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    loaded(folder)
    del tensors["encoder.layer.0.output.dense.weight"]
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(DamagedError, match="lacks weights"):
        loaded(folder)


def test_no_conversion_of_random_weights_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("BGE_EVAL_CACHE", str(tmp_path / "cache"))
    key("config.json", num_hidden_layers=3)(folder)
    options = ModelOptions(backend=Backend.OPENVINO, device="cpu", store=False)
    with pytest.raises(DamagedError, match="lacks weights"):
        EncoderModel(str(folder), options).encoder  # noqa: B018
    assert not list((tmp_path / "cache").rglob("model.xml"))


def test_a_head_of_another_task_is_no_fault(folder: Path) -> None:
    """Checkpoints of masked language models carry a head that an embedder does not use."""
    import torch

    def add(tensors: dict[str, Any]) -> dict[str, Any]:
        renamed = {f"bert.{name}": tensor for name, tensor in tensors.items()}
        return {**renamed, "cls.predictions.bias": torch.zeros(9)}

    weights(add)(folder)
    loaded(folder)


def test_on_the_command_line(folder: Path, bge_eval: CommandLine) -> None:
    text(WEIGHTS, POINTER)(folder)
    done = bge_eval("run", "--model", folder, "--tasks", "demo", "--no-store")
    assert done.returncode == 3
    assert "Git LFS pointer" in done.stderr and "Traceback" not in done.stderr


def test_a_reranker_is_no_embedder(folder: Path) -> None:
    key("config_sentence_transformers.json", model_type="CrossEncoder")(folder)
    with pytest.raises(UsageError, match="Pass it to --reranker"):
        loaded(folder)


def test_an_adapter_of_nothing(folder: Path) -> None:
    key("adapter_config.json", base_model_name_or_path=None)(folder)
    with pytest.raises(DamagedError, match="names no model"):
        loaded(folder)
    key("adapter_config.json", base_model_name_or_path="./nowhere")(folder)
    with pytest.raises(MissingError, match=r"a PEFT adapter of \./nowhere"):
        loaded(folder)


@pytest.mark.parametrize(
    ("change", "library"),
    [
        (key(ST), Library.OURS),
        (key(ST, do_lower_case=True), Library.OURS),
        (key(ST, query_length=None), Library.OURS),
        (key(ST, query_length=8), Library.SENTENCE),
        (key(ST, processing_kwargs={"text": {"max_length": 8}}), Library.SENTENCE),
        (key("config_sentence_transformers.json", model_type="SparseEncoder"), Library.SPARSE),
        (key("config_sentence_transformers.json", model_type="ColBERT"), Library.MULTI_VECTOR),
        (key("config.json", architectures=["HF_ColBERT"]), Library.MULTI_VECTOR),
    ],
)
def test_the_files_name_the_library(folder: Path, change: Change, library: Library) -> None:
    change(folder)
    assert library_of(folder) is library


def test_another_pooling_can_be_asked_for(folder: Path) -> None:
    loaded(folder, pooling=Pooling.MAX)


def test_python_reads_no_pickle_here() -> None:
    """The class of the test would run code: a check of the test itself."""
    assert b"touch" in pickle.dumps(Code())
    assert issubclass(DamagedError, BgeEvalError)
