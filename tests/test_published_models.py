"""OpenVINO runs published models' own configurations, shrunk in width and depth alone.

Vocabulary, positions, token types and padding stay as published: conversions have failed on each.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bge_eval.encode.locate import locate
from bge_eval.encode.settings import Overrides, Pooling
from bge_eval.errors import UsageError
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.opening import open_model
from bge_eval.rerank.cross_encoder import CrossEncoderReranker
from bge_eval.rerank.reranker import RerankerOptions
from bge_eval.runtime.conversions import CONVERTED_TYPES
from test_backends import PAIRS, conversion_facts, encoder, vectors
from test_encoder import TEXTS

PUBLISHED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "published_configs.json").read_text(encoding="utf-8")
)
CONFIGS = {entry["models"][0]: entry["config"] for entry in PUBLISHED}

WIDTH = {"hidden_size": 64, "dim": 64, "embedding_size": 64}
WIDTH |= {"intermediate_size": 128, "hidden_dim": 128, "num_attention_heads": 4, "n_heads": 4}
DEPTH = {"num_hidden_layers": 2, "n_layers": 2}

FIRST_ONLY = {"bert", "electra", "roberta", "xlm-roberta"}
"""Types whose last layer computes the first token alone, where nothing else is read."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BGE_EVAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def shrunk(name: str, **more: Any) -> Any:
    """The configuration of a published model, smaller, with weights that differ from each other."""
    from transformers import AutoConfig

    published = dict(CONFIGS[name])
    smaller = {key: value for key, value in (WIDTH | DEPTH).items() if key in published}
    kind = published.pop("model_type")
    return AutoConfig.for_model(kind, **{**published, **smaller, "initializer_range": 0.3, **more})


def save_tokenizer(folder: Path, padding: int) -> None:
    """Save a tokenizer of bytes that pads with the model's own id, as the published ones do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>"] if padding == 0 else ["<s>", "<pad>"]
    letters = [*special, "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    pieces.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", letters.index("<s>")), ("</s>", 2)],
    )
    roles = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>"}
    names = {f"{role}_token": token for role, token in {**roles, "unk": "<unk>"}.items()}
    PreTrainedTokenizerFast(
        tokenizer_object=pieces, model_max_length=10**30, **names
    ).save_pretrained(folder)


def test_every_converted_type_is_published() -> None:
    assert {config["model_type"] for config in CONFIGS.values()} == CONVERTED_TYPES


@pytest.mark.parametrize("name", CONFIGS)
def test_vectors_equal_torch(tmp_path: Path, own_cache: Path, name: str) -> None:
    import torch
    from transformers import AutoModel

    torch.manual_seed(1)
    config, folder = shrunk(name), tmp_path / "model"
    AutoModel.from_config(config).save_pretrained(folder)
    save_tokenizer(folder, config.pad_token_id)
    options: dict[str, Any] = {"max_length": 512, "normalize": True}
    for pooling in (Pooling.MEAN, Pooling.CLS):
        expected = vectors(folder, "torch", "a prompt: ", pooling=pooling, **options)
        assert np.ptp(expected @ expected.T) > 0.05, "the texts' vectors differ"
        converted = vectors(folder, "openvino", "a prompt: ", pooling=pooling, **options)
        np.testing.assert_allclose(converted, expected, atol=1e-5)
    first_only = {facts["first_only"] for facts in conversion_facts(own_cache)}
    assert first_only == ({True, False} if config.model_type in FIRST_ONLY else {False})


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_equal_torch(tmp_path: Path, own_cache: Path, name: str) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(2)
    config, folder = shrunk(name, num_labels=1), tmp_path / "model"
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    save_tokenizer(folder, config.pad_token_id)

    def scores(backend: str) -> Any:
        options = RerankerOptions(backend=backend, device="cpu", max_length=512)
        return CrossEncoderReranker(locate(str(folder)), options).score(PAIRS)

    expected = scores("torch")
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(scores("openvino"), expected, atol=1e-5)
    [facts] = conversion_facts(own_cache)
    assert facts["first_only"] is (config.model_type in FIRST_ONLY)


def test_a_long_text_of_bge_m3(tmp_path: Path) -> None:
    """Beyond the 512 tokens that the conversion compares."""
    import torch
    from transformers import AutoModel

    torch.manual_seed(3)
    AutoModel.from_config(shrunk("BAAI/bge-m3")).save_pretrained(tmp_path / "model")
    save_tokenizer(tmp_path / "model", 1)
    texts = [*TEXTS, "a long text " * 200]
    options: dict[str, Any] = {"pooling": Pooling.CLS, "max_length": 2048, "normalize": True}
    expected = encoder(tmp_path / "model", "torch", **options).encode(texts)
    converted = encoder(tmp_path / "model", "openvino", **options).encode(texts)
    np.testing.assert_allclose(converted, expected, atol=1e-5)


def test_a_model_of_images_and_texts_is_refused(tmp_path: Path) -> None:
    """CLIP has no token states to pool; its text vectors are projected."""
    config = {"architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": 512}
    config |= {"text_config": {"hidden_size": 512}, "vision_config": {"hidden_size": 768}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_tokenizer(tmp_path, 1)
    options = ModelOptions(overrides=Overrides(pooling=Pooling.CLS))
    with pytest.raises(UsageError, match=r"images and texts \(CLIPModel\).*--loader mteb"):
        open_model(str(tmp_path), options)


def test_backends_differ_in_ties_alone(tmp_path: Path) -> None:
    """Where a vocabulary is small, texts get the same tokens, and rounding orders them.

    A measure can then differ between backends (XLM-R's by 2e-4), as it does between torch's own
    batches: no place in a ranking changes but among documents with equal tokens.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.manual_seed(4)
    folder = tmp_path / "model"
    AutoModel.from_config(shrunk("BAAI/bge-reranker-base")).save_pretrained(folder)
    save_tokenizer(folder, 1)
    # Of the bytes, only six are known: most words become one of few sequences.
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    known = {"<s>", "<pad>", "</s>", "<unk>", *"aeinst"}
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {word: i for word, i in vocabulary.items() if word in known}
    content["model"]["unk_token"] = "<unk>"
    path.write_text(json.dumps(content), encoding="utf-8")
    random = np.random.default_rng(0)
    documents = ["".join(random.choice(list("aeinstxyz"), 5)) for _ in range(600)]
    queries = ["".join(random.choice(list("aeinst"), 12)) for _ in range(40)]
    ids = AutoTokenizer.from_pretrained(folder)(documents)["input_ids"]
    same = np.array([sorted(map(tuple, ids)).index(tuple(row)) for row in ids])

    def ranking(backend: str) -> Any:
        model = encoder(folder, backend, pooling=Pooling.MEAN, max_length=64, normalize=True)
        return np.argsort(-model.encode(queries) @ model.encode(documents).T, kind="stable")

    assert len(set(same.tolist())) < len(set(documents)), "some texts have the same tokens"
    np.testing.assert_array_equal(same[ranking("openvino")[:, :10]], same[ranking("torch")[:, :10]])
