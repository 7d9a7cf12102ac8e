"""``--protocol model-card`` for a reranker: pairs are cut as ``FlagReranker`` cuts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bge_eval
from bge_eval.encode.locate import locate
from bge_eval.encode.protocol import ProtocolName
from bge_eval.errors import UsageError
from bge_eval.rerank.families import RerankerOptions, load_reranker
from bge_eval.rerank.flag_cut import flag_preprocess, longest_pair
from parity.tiny_rerankers import PAIRS

LONG = [("query " * 500, "short"), ("query " * 300, "document " * 300), ("q", "document " * 900)]


def plain_cut(tokenizer: Any, query: str, document: str, limit: int) -> list[int]:
    """The same arithmetic, written out for BERT's ``[CLS] query [SEP] document [SEP]``."""
    asked, answer = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (query, document)
    )
    asked, answer = asked[: limit * 3 // 4], answer[:limit]
    room = limit - 3 - len(asked)
    if room > 0:
        answer = answer[:room]
    return [tokenizer.cls_token_id, *asked, tokenizer.sep_token_id, *answer, tokenizer.sep_token_id]


@pytest.mark.parametrize("limit", [512, 96, 8])
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_cut(tiny_cross_encoder: Path, limit: int, side: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_cross_encoder)
    tokenizer.padding_side = side
    pairs = [*PAIRS, *LONG]
    features = flag_preprocess(tokenizer, limit, "tiny")(pairs)
    lengths = features["attention_mask"].sum(dim=1).tolist()
    for row, (query, document) in enumerate(pairs):
        expected = plain_cut(tokenizer, query, document, limit)
        ids = features["input_ids"][row][features["attention_mask"][row].bool()].tolist()
        assert ids == expected, (query[:20], document[:20])
        types = features["token_type_ids"][row].sum()
        assert types == len(expected) - expected.index(tokenizer.sep_token_id) - 1
    assert max(lengths) == (limit if limit > 8 else 6 + 3 + 8), "at 8 tokens nothing is left to cut"


def test_scores_and_identity(tiny_cross_encoder: Path) -> None:
    files = locate(str(tiny_cross_encoder))
    options = RerankerOptions(device="cpu", protocol=ProtocolName.MODEL_CARD)
    card, board = load_reranker(files, options), load_reranker(files, RerankerOptions(device="cpu"))
    assert card.identity() == {**board.identity(), "protocol": "model-card"}
    ours, theirs = card.score([*PAIRS, *LONG]), board.score([*PAIRS, *LONG])
    # Logits, where sentence-transformers gives their sigmoid; equal for pairs that nobody cuts.
    sigmoid = 1 / (1 + np.exp(-ours))
    np.testing.assert_allclose(sigmoid[: len(PAIRS)], theirs[: len(PAIRS)], atol=1e-6)
    assert abs(sigmoid[-3] - theirs[-3]) > 1e-3, "a query beyond 384 tokens"
    np.testing.assert_allclose(sigmoid[-1], theirs[-1], atol=1e-6)


def test_the_longest_pair() -> None:
    assert longest_pair(None, None) == longest_pair(None, 8192) == 512
    assert longest_pair(None, 256) == 256 and longest_pair(100, 8192) == 100


@pytest.mark.slow
def test_end_to_end(tiny_cross_encoder: Path, minilm_folder: Path, tmp_path: Path) -> None:
    """The protocol reaches the reranker, and both results stand side by side."""
    paths = []
    for protocol in ("leaderboard", "model-card"):
        done = bge_eval.evaluate(
            str(minilm_folder),
            ["demo"],
            reranker=str(tiny_cross_encoder),
            rerank_top_k=3,
            output=tmp_path,
            offline=True,
            store=False,
            protocol=protocol,
        )
        assert not done.failures
        paths += [str(path) for files in done.files.values() for path in files]
    assert len(set(paths)) == 4, "first and second stage under both protocols"
    assert sum("reranker_protocol_model-card" in path for path in paths) == 1, paths


@pytest.mark.slow
def test_after_bm25(tiny_cross_encoder: Path, tmp_path: Path) -> None:
    """BM25 has no protocol and no precision; with a reranker, they are the reranker's."""
    where: dict[str, Any] = {"output": tmp_path, "offline": True}
    card: dict[str, Any] = {
        "protocol": "model-card",
        "reranker": str(tiny_cross_encoder),
        "rerank_top_k": 3,
    }
    done = bge_eval.evaluate("bm25", ["demo"], **card, **where)
    assert not done.failures
    paths = [str(path) for files in done.files.values() for path in files]
    assert sum("reranker_protocol_model-card" in path for path in paths) == 1, paths
    with pytest.raises(UsageError, match=r"--protocol cannot be used with --model bm25"):
        bge_eval.evaluate("bm25", ["demo"], protocol="model-card", **where)
    with pytest.raises(UsageError, match=r"--max-length cannot be used with --model bm25"):
        bge_eval.evaluate("bm25", ["demo"], max_length=9, **card, **where)
