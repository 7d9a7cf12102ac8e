"""The families of rerankers, by name."""

from __future__ import annotations

from enum import StrEnum


class RerankerKind(StrEnum):
    """How a reranker scores a pair."""

    CROSS_ENCODER = "cross-encoder"
    """A classifier over both texts, as sentence-transformers runs it."""
    LLM = "llm"
    """The logit of "Yes" after BGE's question (bge-reranker-v2-gemma)."""
    LAYERWISE = "layerwise"
    """A score head at many layers (bge-reranker-v2-minicpm-layerwise)."""
    LIGHTWEIGHT = "lightweight"
    """The same, with compression of the passage (bge-reranker-v2.5-gemma2-lightweight)."""
    MATROYSHKA = "matroyshka"
    """A Mistral with a score head at many layers (Matroyshka-ReRanker-beir)."""
    QWEN3 = "qwen3"
    """The probability of "yes" against "no" after a chat prompt (Qwen3-Reranker)."""
    LATE = "late"
    """Late interaction of an embedder's own token vectors (BGE-M3's, or any transformer's)."""
