"""A text's vector and a pair's score do not depend on the batch, whichever side is padded."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bge_eval.encode.locate import locate
from bge_eval.encode.positions import counts_padding, pads_left
from bge_eval.encode.settings import (
    Backend,
    Overrides,
    Pooling,
    apply_overrides,
    read_model_config,
)
from bge_eval.errors import DamagedError, UsageError
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.opening import open_model
from bge_eval.models.transformer import EncoderModel
from bge_eval.rerank.families import RerankerOptions, load_reranker
from bge_eval.rerank.kinds import RerankerKind
from bge_eval.runtime.pooling import pooled
from bge_eval.runtime.text_encoder import TextEncoder, load_tokenizer
from bge_eval.runtime.token_states import TokenStates, token_vectors
from bge_eval.runtime.torch_forward import TorchForward, pool
from conftest import make_encoder
from parity.tiny_rerankers import PAIRS
from parity.tiny_rerankers import tokenizer as byte_tokenizer

TEXTS = ["x", "", "A short sentence.", "long " * 60, "中文文本也要正确处理。", "Ünïcödé — “quotes”"]
OWN = "from the text's first token"


def left_padded(folder: Path, copied: Path) -> Path:
    """Copy a model whose tokenizer then pads on the left."""
    shutil.copytree(copied, folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left"}))
    return folder


def test_a_left_padding_encoder_gives_each_text_its_own_vector(
    tmp_path: Path, tiny_bge: Path
) -> None:
    files = locate(str(left_padded(tmp_path / "left", tiny_bge)), offline=True)
    settings = apply_overrides(read_model_config(files, Overrides()).settings, Overrides())
    tokenizer = load_tokenizer(files, settings)
    assert tokenizer.padding_side == "left"
    poolings = [(pooling, True) for pooling in Pooling] + [(Pooling.MEAN, False)]
    for pooling, pool_prompt in poolings:
        chosen = replace(settings, pooling=pooling, pool_prompt=pool_prompt)
        forward = TorchForward(files, chosen, device="cpu")
        encoder = TextEncoder(tokenizer, forward, chosen)
        together = encoder.encode(TEXTS, "query: ")
        alone = [encoder.encode([text], "query: ")[0] for text in TEXTS]
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


def test_alone_it_has_the_vectors_of_sentence_transformers(
    tmp_path: Path, minilm_folder: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    right = make_encoder(tmp_path / "right", minilm_folder, "lasttoken")
    folder = left_padded(tmp_path / "left", right)
    theirs = SentenceTransformer(str(folder), device="cpu")
    encoded = EncoderModel(str(folder), ModelOptions(backend=Backend.TORCH)).encoder.encode(TEXTS)
    np.testing.assert_allclose(encoded, theirs.encode(TEXTS, batch_size=1), rtol=0, atol=1e-5)
    assert np.abs(theirs.encode(TEXTS) - encoded).max() > 1e-2  # theirs depend on the batch


def test_vectors_that_depended_on_the_batch_are_not_taken_from_the_store(
    tmp_path: Path, tiny_bge: Path, minilm_folder: Path
) -> None:
    import mteb

    task = mteb.get_task("SciFact").metadata
    for folder, stated in ((tiny_bge, None), (left_padded(tmp_path / "l", tiny_bge), OWN)):
        model = EncoderModel(str(folder), ModelOptions(store=False))
        facts = model.facts(model.form(task, None), "")
        assert facts.get("positions") == model.identity(task).get("positions") == stated
        assert "positions" not in (model.mteb_model_meta.experiment_kwargs or {})


@pytest.mark.parametrize(
    ("config", "counted"),
    [
        ({"model_type": "bert"}, True),
        ({"model_type": "bert", "position_embedding_type": "absolute"}, True),
        ({"model_type": "bert", "position_embedding_type": "alibi"}, False),
        ({"model_type": "gpt2"}, True),
        ({"model_type": "deberta-v2", "position_biased_input": False}, False),
        ({"model_type": "deberta-v2", "position_biased_input": True}, True),
        ({"model_type": "xlm-roberta"}, False),
        ({"model_type": "qwen3"}, False),
        ({"model_type": "unknown", "rope_theta": 1e4}, False),
        ({"model_type": "unknown"}, True),
    ],
)
def test_models_whose_positions_count_padding(config: dict[str, Any], counted: bool) -> None:
    assert counts_padding(config) is counted


@pytest.mark.parametrize(
    ("stated", "own", "options", "left"),
    [
        ({}, {}, {}, False),
        ({"padding_side": "left"}, {}, {}, True),
        ({"padding_side": "left"}, {}, {"padding_side": "right"}, False),
        ({"padding_side": "right"}, {"padding": {"direction": "Left"}}, {}, False),
        ({}, {"padding": {"direction": "Left"}}, {}, True),
        ({}, {"padding": None}, {}, False),
        ({"tokenizer_class": "LlamaTokenizerFast"}, {}, {}, True),
    ],
)
def test_the_side_of_a_tokenizer_is_read_from_its_files(
    tmp_path: Path, stated: Any, own: Any, options: Any, left: bool
) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(stated))
    (tmp_path / "tokenizer.json").write_text(json.dumps(own))
    assert pads_left(tmp_path, options) is left


def assert_scored_apart(reranker: Any, alone: Any) -> None:
    """The scores of a batch are those of each pair alone, with a fresh reranker each time."""
    together = reranker.score(PAIRS)
    one_by_one = [alone.score([pair])[0] for pair in PAIRS]
    np.testing.assert_allclose(together, one_by_one, rtol=0, atol=1e-5)


def test_a_left_padding_cross_encoder_scores_each_pair_as_alone(
    tmp_path: Path, tiny_cross_encoder: Path
) -> None:
    options = RerankerOptions(device="cpu", backend="torch")
    folder = left_padded(tmp_path / "left", tiny_cross_encoder)
    reranker = load_reranker(locate(str(folder)), options)
    assert reranker.identity()["positions"] == OWN
    right = load_reranker(locate(str(tiny_cross_encoder)), options)
    assert "positions" not in right.identity()
    np.testing.assert_allclose(reranker.score(PAIRS), right.score(PAIRS), rtol=0, atol=1e-6)
    assert_scored_apart(reranker, right)


def test_a_causal_cross_encoder_of_absolute_positions_scores_each_pair_as_alone(
    tmp_path: Path,
) -> None:
    """sentence-transformers pads it on the left, and passes no positions."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.modules import LogitScore, Transformer

    folder = gpt2(tmp_path / "gpt2")
    body = Transformer(str(folder), transformer_task="text-generation")
    theirs = CrossEncoder(modules=[body, LogitScore(5)], device="cpu")
    theirs.save_pretrained(str(tmp_path / "saved"))
    files = locate(str(tmp_path / "saved"))
    reranker = load_reranker(files, RerankerOptions(device="cpu"))
    assert reranker.identity()["positions"] == OWN
    pairs = [pair for pair in PAIRS if any(pair)]
    alone = theirs.predict(pairs, batch_size=1, activation_fn=None)
    np.testing.assert_allclose(reranker.score(pairs), alone, rtol=0, atol=1e-5)
    assert np.abs(theirs.predict(pairs, activation_fn=None) - alone).max() > 1e-3


def gpt2(folder: Path, positions: int = 1024) -> Path:
    """A random GPT-2 that reads single bytes, with large position vectors."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    folder.mkdir()
    size = byte_tokenizer(folder, "left")
    torch.manual_seed(4)
    config = GPT2Config(
        vocab_size=size,
        n_positions=positions,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.3,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_a_language_model_of_absolute_positions_scores_each_pair_as_alone(tmp_path: Path) -> None:
    files = locate(str(gpt2(tmp_path / "gpt2")))
    options = RerankerOptions(device="cpu", kind=RerankerKind.LLM)
    reranker = load_reranker(files, options)
    assert reranker.identity()["positions"] == OWN
    assert_scored_apart(reranker, load_reranker(files, options))


def test_an_encoder_that_names_its_positions_otherwise_is_cut_as_in_sentence_transformers(
    tmp_path: Path,
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = gpt2(tmp_path / "gpt2", positions=40)
    theirs = SentenceTransformer(str(folder), device="cpu")
    mean = Overrides(pooling=Pooling.MEAN)
    encoder = EncoderModel(str(folder), ModelOptions(backend=Backend.TORCH, overrides=mean)).encoder
    assert encoder.settings.max_length == theirs.max_seq_length == 40
    ours = encoder.encode(["b" * 90, "b" * 39])
    np.testing.assert_allclose(ours[0], theirs.encode("b" * 90), rtol=0, atol=1e-5)
    longer = ModelOptions(backend=Backend.TORCH, overrides=replace(mean, max_length=41))
    with pytest.raises(UsageError, match="--max-length 41 exceeds the 40 positions"):
        EncoderModel(str(folder), longer).encoder  # noqa: B018


def test_a_folder_run_by_sentence_transformers_gives_each_text_its_own_vector(
    tmp_path: Path, minilm_folder: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = left_padded(tmp_path / "left", make_encoder(tmp_path / "right", minilm_folder, "mean"))
    path = folder / "sentence_bert_config.json"
    lengths = {"query_length": 512, "document_length": 512}
    path.write_text(json.dumps({**json.loads(path.read_text()), **lengths}))
    model: Any = open_model(str(folder), ModelOptions(store=False))
    import mteb

    task = mteb.get_task("SciFact").metadata
    assert model.identity(task)["positions"] == OWN
    loaded: Any = model._load()
    together = loaded.model.encode(TEXTS)
    alone = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, batch_size=1)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", [Pooling.CLS, Pooling.MEAN, Pooling.LAST])
def test_a_text_of_no_token_is_pooled_alike_in_every_batch(pooling: Pooling) -> None:
    import torch

    hidden = torch.arange(24.0).view(2, 4, 3)
    mask = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 0]])
    wide, narrow = (pool(hidden[:, :n], mask[:, :n], pooling)[0] for n in (4, 1))
    assert torch.equal(wide, narrow)
    in_numpy = pooled(hidden.numpy(), mask.numpy(), pooling)
    np.testing.assert_array_equal(in_numpy, pool(hidden, mask, pooling).numpy())


def test_a_text_of_no_token_has_no_token_vectors() -> None:
    import torch

    mask = torch.tensor([[0, 0, 0], [1, 1, 0]])
    states = TokenStates(np.arange(2), [[], [5, 6]], torch.ones(2, 3, 4), mask)
    assert [len(vectors) for vectors in token_vectors(states, None)] == [0, 1]


def late(folder: Path, **more: Any) -> Any:
    options = RerankerOptions(device="cpu", kind=RerankerKind.LATE, **more)
    return load_reranker(locate(str(folder)), options)


def test_late_interaction_cuts_texts_at_the_model_s_positions(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    size = byte_tokenizer(tmp_path, "right")
    config = BertConfig(vocab_size=size, num_attention_heads=2, max_position_embeddings=40, **sizes)
    BertModel(config).save_pretrained(tmp_path)
    [cut, whole] = late(tmp_path).score([("a query", "b" * 40), ("a query", "b" * 90)])
    assert cut == whole
    with pytest.raises(UsageError, match=r"--reranker-max-length 41 exceeds the 40 positions"):
        late(tmp_path, max_length=41).score([("a query", "b" * 90)])


def test_late_interaction_refuses_random_weights(tmp_path: Path, tiny_bge: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(tiny_bge, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DamagedError, match="lacks weights of its configuration"):
        late(folder).score([("a query", "a document")])


@pytest.mark.parametrize(
    ("kind", "length", "message"),
    [
        (RerankerKind.LLM, 1024, "has 1024 positions; with --reranker-max-length 1024"),
        (RerankerKind.QWEN3, 8, "--reranker-max-length 8 leaves no room for a query"),
        (RerankerKind.LATE, 1, "--reranker-max-length 1 leaves no room for a text"),
    ],
)
def test_a_length_that_a_model_cannot_read_is_refused(
    tmp_path: Path, kind: RerankerKind, length: int, message: str
) -> None:
    options = RerankerOptions(device="cpu", kind=kind, max_length=length)
    reranker = load_reranker(locate(str(gpt2(tmp_path / "model"))), options)
    with pytest.raises(UsageError, match=message):
        reranker.score(PAIRS)
