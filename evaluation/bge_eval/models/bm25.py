"""BM25 with bm25s, set up as the published baseline ``mteb/baseline-bm25s``.

Stopwords, stemmer and tokeniser by language are mteb's own
(``mteb.models.model_implementations.bm25.BM25Tokenizer``); k1, b, delta and the variant are those
of its ``BM25Search``. Two things differ, both for the better:

- Chinese is segmented into words, and the parts of long words, by jieba's dictionary, also where
  a corpus mixes it with English. mteb's baseline splits it into single characters, or, in a task
  of several languages, takes a whole sentence for one word.
- Documents that share no word with a query are not retrieved, and in a task with given
  candidates every candidate is scored. mteb fills a short list with documents of score 0, and
  loses candidates that are not among the first thousand of the whole corpus.
"""

from __future__ import annotations

import contextlib
import io
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bge_eval.data.texts import query_texts
from bge_eval.errors import MissingError
from bge_eval.models.base import Model, model_meta
from bge_eval.models.kinds import Kind
from bge_eval.progress import Progress
from bge_eval.records import Run
from bge_eval.search.ranking import best

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta

NAME = "bm25"
"""This model's name in ``--model``."""

_PARAMETERS = {"method": "lucene", "k1": 1.5, "b": 0.75, "delta": 0.5}
"""Those of mteb's baseline; bm25s's lucene variant does not use delta."""
_PACKAGES = {"bm25s": "bm25s", "Stemmer": "PyStemmer", "rjieba": "rjieba"}
"""Module → package, all of the extra ``bm25``."""
_CHINESE = {"zho", "cmn"}
_HAN = re.compile(r"[\u4e00-\u9fff]")
_HAN_SHARE = 0.05
"""Share of documents with Chinese characters that makes an English corpus a mixed one."""
_READ_AT_ONCE = 8192


class BM25Model(Model):
    """A lexical model behind mteb's SearchProtocol; it has no vectors and no prompts."""

    def __init__(self, *, progress: Progress | None = None) -> None:
        """Check that the packages are installed.

        Args:
            progress: receives the steps of indexing and searching.

        Raises:
            MissingError: the packages of the extra are not installed.
        """
        missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
        if missing:
            raise MissingError(
                f"--model bm25 needs {', '.join(missing)}. Install with: pip install"
                " 'bge-eval[bm25]'"
            )
        super().__init__(progress)
        self._version = version("bm25s")
        self._meta = model_meta(
            {
                "name": "bge-eval/bm25",
                "revision": self._version,
                "model_type": ["sparse"],
                "n_parameters": 0,
                "reference": "https://github.com/xhluca/bm25s",
                "use_instructions": False,
            }
        )

    def introduction(self) -> tuple[str, ...]:
        """Return the parameters."""
        return (
            f"BM25 by bm25s {self._version}: k1 {_PARAMETERS['k1']}, b"
            f" {_PARAMETERS['b']}, stopwords and stemmer of the data's language",
        )

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the packages of the extra."""
        return tuple(_PACKAGES.values())

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return mteb's record of the model; its revision is the version of bm25s."""
        return self._meta

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return everything about this model that the scores of one task depend on."""
        return {
            "name": self._meta.name,
            "revision": self._meta.revision,
            **_PARAMETERS,
            "words": "by language, as mteb/baseline-bm25s; Chinese by jieba",
        }

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> Run:
        """Index the corpus and search it; see `Model.search`.

        The languages of the task and its subset decide how texts are split into words. Where
        ``top_ranked`` gives candidates, every candidate is scored.
        """
        import bm25s

        corpus = self._take_corpus()
        documents = _documents(corpus)
        tokenizer = _tokenizer(_language(task_metadata, hf_subset), documents)
        # Our progress replaces the bars that bm25s draws on stderr.
        with (
            self.progress.step("index corpus", len(corpus), "documents") as step,
            contextlib.redirect_stderr(io.StringIO()),
        ):
            words = tokenizer.fit_transform(documents)
            index = bm25s.BM25(**_PARAMETERS)
            index.index(words, show_progress=False)
            step.advance(len(corpus))
        texts = query_texts(queries)
        with contextlib.redirect_stderr(io.StringIO()):
            asked = tokenizer.transform(texts)
        by_id = {number: word for word, number in asked.vocab.items()}
        ids = np.array(corpus["id"], dtype=object)
        run: Run = {}
        with self.progress.step("search", len(queries), "queries") as step:
            for query, numbers in zip(queries["id"], asked.ids, strict=True):
                words_asked = [by_id[number] for number in numbers]
                # bm25s ignores words that no document has, but fails on a query without words.
                scores = (
                    index.get_scores(words_asked) if words_asked else np.zeros(len(ids), np.float32)
                )
                if top_ranked is not None:
                    wanted = set(top_ranked.get(query, ()))
                    rows = np.array([row for row, doc in enumerate(ids) if doc in wanted], np.int64)
                else:
                    rows = np.flatnonzero(scores > 0)
                run[query] = _best(ids[rows], scores[rows], top_k)
                step.advance(1)
        return run


def chinese_words() -> Callable[[str], list[str]]:
    """Return a function that splits Chinese and mixed text into words, without punctuation.

    Long words are followed by the words within them. Letters are folded (full-width too) and put
    in lower case; Latin words lose English stopwords and endings, as in mteb's baseline:
    ``"ＢＧＥ的糖尿病 models"`` gives ``["bge", "的", "糖尿", "糖尿病", "model"]``.
    """
    import rjieba
    import Stemmer
    from bm25s.tokenization import STOPWORDS_EN

    stem = Stemmer.Stemmer("english").stemWord

    def words(text: str) -> list[str]:
        folded = unicodedata.normalize("NFKC", text).lower()
        cut = (word for word in rjieba.cut_for_search(folded) if any(map(str.isalnum, word)))
        return [stem(word) if word.isascii() else word for word in cut if word not in STOPWORDS_EN]

    return words


def _tokenizer(language: str | None, documents: Sequence[str]) -> Any:
    """Return mteb's tokeniser for a language, or one that splits Chinese into words."""
    from mteb.models.model_implementations.bm25 import BM25Tokenizer

    if language in _CHINESE or (language in (None, "eng") and _holds_chinese(documents)):
        return BM25Tokenizer(None, stopwords_key="zh", tokenizer=chinese_words())
    return BM25Tokenizer(language or "eng")


def _holds_chinese(documents: Sequence[str]) -> bool:
    chinese = sum(_HAN.search(text) is not None for text in documents)
    return chinese >= max(1, _HAN_SHARE * len(documents))


def _language(task: TaskMetadata, subset: str) -> str | None:
    """Return the language of a subset (ISO 639-3), or None where there are several."""
    languages = task.eval_langs
    of_subset = languages.get(subset, []) if isinstance(languages, dict) else languages
    codes = {code.split("-")[0] for code in of_subset}
    return codes.pop() if len(codes) == 1 else None


def _documents(corpus: Dataset) -> list[str]:
    """Join title and text by a line break, as mteb's baseline does."""
    texts = []
    for start in range(0, len(corpus), _READ_AT_ONCE):
        batch = corpus[start : start + _READ_AT_ONCE]
        titles = batch.get("title") or [""] * len(batch["text"])
        texts += [
            f"{title or ''}\n{text}" for title, text in zip(titles, batch["text"], strict=True)
        ]
    return texts


def _best(
    ids: npt.NDArray[np.object_], scores: npt.NDArray[np.float32], top_k: int
) -> dict[str, float]:
    """Keep the best documents, equal scores by descending id, at the cut too."""
    if len(ids) > top_k:
        cut = np.partition(scores, -top_k)[-top_k]
        kept = scores >= cut
        ids, scores = ids[kept], scores[kept]
    return best(dict(zip(ids.tolist(), scores.tolist(), strict=True)), top_k)


KIND = Kind(
    "lexical search",
    recognises=lambda name, options: name == NAME,
    open=lambda name, options, progress: BM25Model(progress=progress),
)
