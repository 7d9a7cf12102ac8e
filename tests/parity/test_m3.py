"""BGE-M3's modes and late interaction against FlagEmbedding, on a tiny model in its layout."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from bge_eval.encode.locate import content_revision, locate
from bge_eval.encode.settings import Overrides, Pooling, Similarity
from bge_eval.errors import MissingError, UsageError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.m3 import M3Model, parse_modes
from bge_eval.models.m3_vectors import Mode
from bge_eval.models.opening import open_model
from bge_eval.models.transformer import EncoderModel
from bge_eval.rerank.families import RerankerOptions, load_reranker
from bge_eval.rerank.kinds import RerankerKind
from bge_eval.suites.catalogue import plan
from interrupted import assert_same, stopped_after
from parity.flagembedding import FlagEmbedding, assert_close
from torture import make_data

QUERIES = ["what makes bones strong", "糖尿病的原因", "", "a very long query " * 12]
DOCUMENTS = [
    "Vitamin D strengthens bones.",
    "",
    "二型糖尿病与体重有关。",
    "Aspirin thins the blood.",
    "word " * 60,
    "Ünïcödé — “quotes”",
    "Vitamin D strengthens bones.",
]
LENGTH = 96


@pytest.fixture(scope="module")
def tiny_m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """XLM-RoBERTa with the two heads, CLS pooling and normalisation, as BAAI/bge-m3."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    folder = tmp_path_factory.mktemp("hub") / "bge-m3"
    letters = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    pieces.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    named = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>"}
    names = {f"{name}_token": token for name, token in {**named, "unk": "<unk>"}.items()}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, model_max_length=LENGTH, **names)
    torch.manual_seed(4)
    config = XLMRobertaConfig(
        vocab_size=len(letters),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=LENGTH + 2,
        initializer_range=0.4,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    XLMRobertaModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    body = Transformer(str(folder), max_seq_length=LENGTH)
    modules = [body, Pooling(32, pooling_mode="cls"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    for name, size in (("sparse_linear.pt", 1), ("colbert_linear.pt", 32)):
        torch.save(torch.nn.Linear(32, size).state_dict(), folder / name)
    return folder


@pytest.fixture(scope="module")
def reference(tiny_m3: Path, flagembedding: FlagEmbedding) -> dict[str, Any]:
    """FlagEmbedding's scores by mode, ``(queries, documents)``."""
    texts = {"queries": QUERIES, "documents": DOCUMENTS}
    scores = flagembedding("m3", tiny_m3, **texts, max_length=LENGTH)
    dense, sparse, colbert = (np.array(scores[mode]) for mode in ("dense", "sparse", "colbert"))
    return {
        "dense": dense,
        "sparse": sparse,
        "colbert": colbert,
        "sparse+dense": (dense + 0.3 * sparse) / 1.3,
        "colbert+sparse+dense": (dense + 0.3 * sparse + colbert) / 2.3,
    }


def dataset(texts: list[str], mark: str) -> Dataset:
    return Dataset.from_dict({"id": [f"{mark}{i}" for i in range(len(texts))], "text": texts})


def searched(folder: Path, modes: str, weights: str | None = None, **kwargs: Any) -> Any:
    encoder = EncoderModel(str(folder), ModelOptions(device="cpu", batch_tokens=200))
    model = M3Model(encoder, parse_modes(modes, weights))
    model.index(dataset(DOCUMENTS, "d"))
    task = plan(["demo"])[0].task.metadata
    run = model.search(
        dataset(QUERIES, "q"),
        task_metadata=task,
        hf_split="test",
        hf_subset="default",
        top_k=1000,
        **kwargs,
    )
    return np.array(
        [[run[f"q{q}"][f"d{d}"] for d in range(len(DOCUMENTS))] for q in range(len(QUERIES))]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modes", "weights", "name"),
    [
        ("dense", None, "dense"),
        ("sparse", None, "sparse"),
        ("colbert", None, "colbert"),
        ("dense,sparse", "1,0.3", "sparse+dense"),
        ("dense,sparse,colbert", "1,0.3,1", "colbert+sparse+dense"),
    ],
)
def test_modes_equal_flag_embedding(
    tiny_m3: Path, reference: dict[str, Any], modes: str, weights: str | None, name: str
) -> None:
    expected = reference[name]
    assert np.ptp(expected) > 0.05
    assert_close(searched(tiny_m3, modes, weights), expected)
    candidates = {f"q{q}": [f"d{d}" for d in range(len(DOCUMENTS))] for q in range(len(QUERIES))}
    given = searched(tiny_m3, modes, weights, top_ranked=candidates)
    assert_close(given, expected)


@pytest.mark.slow
def test_late_interaction_reranker(tiny_m3: Path, reference: dict[str, Any]) -> None:
    reranker = load_reranker(locate(str(tiny_m3)), RerankerOptions(device="cpu", max_length=LENGTH))
    assert reranker.identity()["kind"] == RerankerKind.LATE
    pairs = [(query, document) for query in QUERIES for document in DOCUMENTS]
    assert_close(reranker.score(pairs), reference["colbert"].ravel())


def test_depth_of_the_multi_vector_score(
    tiny_m3: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Below its depth the order is that of the others, beneath what was scored."""
    monkeypatch.setattr("bge_eval.models.m3.DEPTH", 3)
    dense, mixed = searched(tiny_m3, "dense"), searched(tiny_m3, "dense,colbert")
    for first, second in zip(dense, mixed, strict=True):
        before, after = np.argsort(-first, kind="stable"), np.argsort(-second, kind="stable")
        assert set(first[after[:3]]) == set(first[before[:3]])
        np.testing.assert_allclose(first[after[3:]], first[before[3:]])


def test_every_mode_is_an_experiment(tiny_m3: Path, tmp_path: Path) -> None:
    """The whole way through: filed apart, dense alone as without the option."""
    encoder = EncoderModel(str(tiny_m3), ModelOptions(device="cpu"))
    options = Options(tmp_path, offline=True)
    plain = evaluate(encoder, plan(["demo"]), options).done["BgeEvalDemo"][0]
    model = M3Model(encoder, parse_modes("dense,sparse", None))
    mixed = evaluate(model, plan(["demo"]), options).done["BgeEvalDemo"][0]
    assert "m3_mode_dense+sparse" in str(mixed.relative_to(tmp_path))
    assert plain.read_text() != mixed.read_text()
    again = evaluate(M3Model(encoder, {Mode.DENSE: 2.0, Mode.SPARSE: 0.6}), plan(["demo"]), options)
    scores = (again.done["BgeEvalDemo"][0]).with_name("BgeEvalDemo.run.tsv.gz")
    assert again.reused == [] and scores.is_file()


def test_dense_alone_encodes(tiny_m3: Path) -> None:
    """Tasks without documents (STS, classification) get the encoder's vectors."""
    from torch.utils.data import DataLoader

    options = ModelOptions(device="cpu", m3_mode="dense", store=False)
    model: Any = open_model(str(tiny_m3), options)
    assert (
        model.encodes
        and not open_model(str(tiny_m3), replace(options, m3_mode="dense,sparse")).encodes
    )
    task = plan(["STS12"])[0].task.metadata
    loader: Any = DataLoader(Dataset.from_dict({"text": DOCUMENTS}), batch_size=2)
    where: dict[str, Any] = {"task_metadata": task, "hf_split": "test", "hf_subset": "default"}
    plain = EncoderModel(str(tiny_m3), ModelOptions(device="cpu", store=False))
    vectors = model.encode(loader, **where)
    np.testing.assert_array_equal(vectors, plain.encode(loader, **where))
    np.testing.assert_array_equal(
        model.similarity_pairwise(vectors, vectors[::-1].copy()),
        plain.similarity_pairwise(vectors, vectors[::-1].copy()),
    )


def test_heads_are_content(tiny_m3: Path) -> None:
    """A head that changes makes another revision."""
    before = content_revision(tiny_m3)
    head = tiny_m3 / "sparse_linear.pt"
    content = head.read_bytes()
    head.write_bytes(content + b"\0")
    assert content_revision(tiny_m3) != before
    head.write_bytes(content)


def test_wrong_modes(tiny_bge: Path) -> None:
    with pytest.raises(UsageError, match="'multi' is none of dense, sparse, colbert"):
        parse_modes("dense,multi", None)
    with pytest.raises(UsageError, match=r"2 modes .* need as many weights"):
        parse_modes("dense,sparse", "1")
    with pytest.raises(UsageError, match="names a mode twice"):
        parse_modes("dense,dense", None)
    with pytest.raises(UsageError, match="takes numbers"):
        parse_modes("dense", "one")
    encoder = EncoderModel(str(tiny_bge), ModelOptions(overrides=Overrides()))
    with pytest.raises(MissingError, match=r"has no sparse_linear\.pt"):
        M3Model(encoder, parse_modes("sparse", None))
    with pytest.raises(UsageError, match="is an embedder"):
        load_reranker(locate(str(tiny_bge)), RerankerOptions())


def test_a_cosine_is_one_though_no_file_says_normalise(tiny_m3: Path, tmp_path: Path) -> None:
    """Checkpoints of FlagEmbedding's trainer have no modules.json."""
    bare = tmp_path / "bge-m3"
    shutil.copytree(tiny_m3, bare)
    for name in ("modules.json", "1_Pooling", "2_Normalize", "sentence_bert_config.json"):
        path = bare / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    model = EncoderModel(
        str(bare), ModelOptions(overrides=Overrides(pooling=Pooling.CLS), device="cpu")
    )
    assert not model.settings.normalize and model.settings.similarity is Similarity.COSINE
    both = M3Model(model, parse_modes("dense,sparse", None))
    vectors = both.vectors(DOCUMENTS, "", "encode", {Mode.DENSE, Mode.SPARSE})
    np.testing.assert_allclose(np.linalg.norm(vectors.dense, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("batches", [1, 4, 9])
def test_a_killed_run_of_all_modes_goes_on(
    tiny_m3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    """Killed among queries, documents and candidates: the rest is computed, to the last bit."""
    make_data(tmp_path / "Torture", 30, 4)
    tasks = plan([str(tmp_path / "Torture")])

    def run(output: Path) -> dict[str, int]:
        options = ModelOptions(device="cpu", batch_tokens=600, store=tmp_path / "store")
        model = M3Model(
            EncoderModel(str(tiny_m3), options), parse_modes("dense,sparse,colbert", None)
        )
        report = evaluate(model, tasks, Options(output, offline=True))
        assert not report.failed, report.failed
        return model.progress.profile.counts

    left = stopped_after(run, tmp_path / "whole", batches, monkeypatch)
    counts = run(left)
    assert counts["store"] > 0
    assert_same(left, tmp_path / "whole")
