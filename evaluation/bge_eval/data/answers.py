"""Retrieval judged by answer strings: a passage is right if it holds one of a question's answers.

::

    <folder>/corpus.jsonl                       {"id", "title", "text"}, one for all languages
    <folder>/<language>/test_queries.jsonl      {"id", "text"}
    <folder>/<language>/test_qrels.jsonl        {"qid", "answers": ["…"]}
    or <folder>/<language>.jsonl                {"id", "question", "answers": ["…"]}

This is how BGE-M3's authors measure MKQA (Recall@20, Recall@100): the share of questions for
which one of the first k passages holds an answer. That is Success@k with the passages that hold
an answer as the relevant ones, so scores are filed under mteb's ``hit_rate_at_k``.
"""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.data.files import Place, find_file, fingerprint, records, text_of
from bge_eval.data.identity import DataIdentity
from bge_eval.data.retrieval_folder import FLAG, RetrievalFolder
from bge_eval.data.sources import holding
from bge_eval.errors import DamagedError, MissingError
from bge_eval.progress import Progress
from bge_eval.search.ranking import ranked

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask
    from mteb.abstasks.retrieval import AbsTaskRetrieval

_DEPTH = 100
"""How many of the first passages are searched for answers."""
_NONE = "(no passage with an answer)"
"""Stands for the relevant document of a question none of whose first passages holds an answer."""


@dataclass(frozen=True, slots=True)
class AnswersSource:
    """A corpus, and the questions with their answers in each language."""

    root: Place
    """What was found under the task's name."""
    languages: tuple[str, ...]
    """The task's subsets."""

    @property
    def origin(self) -> str:
        """Return the folder."""
        return str(self.root)

    @property
    def is_copy(self) -> bool:
        """A folder of the user's."""
        return True

    def identity(self, task: AbsTask) -> DataIdentity:
        """Fingerprint the corpus and the languages that are scored."""
        return DataIdentity(
            "answers", fingerprint(self._files()), tuple(task.eval_splits), self.languages
        )

    def check(self, task: AbsTask) -> None:
        """See that every file is there."""
        self._files()

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Read corpus, questions and answers into the task."""
        from datasets import Dataset

        files = self._files()
        with tempfile.TemporaryDirectory(prefix="bge-eval-") as folder:
            with progress.step("load", None, "documents") as step:
                corpus = RetrievalFolder(self.root, FLAG).corpus(Path(folder), step)
            task.answers = {}  # type: ignore[attr-defined]
            dataset: dict[str, dict[str, Any]] = {}
            for language in self.languages:
                questions, answers = _read(files, language)
                task.answers[language] = answers  # type: ignore[attr-defined]
                split = {
                    "corpus": corpus,
                    "queries": Dataset.from_dict(
                        {"id": list(questions), "text": list(questions.values())}
                    ),
                    "relevant_docs": {question: {_NONE: 1} for question in questions},
                    "top_ranked": None,
                }
                dataset[language] = dict.fromkeys(task.eval_splits, split)
            with holding(task, dataset):
                yield

    def _files(self) -> dict[str, Place]:
        """Return the files by their logical name.

        Raises:
            MissingError: one is not there; says what is.
        """
        found: dict[str, Place] = {}
        for name in ("corpus.jsonl", *self.languages):
            if name == "corpus.jsonl":
                here = {name: find_file(self.root, name)}
            elif (single := find_file(self.root, f"{name}.jsonl")) is not None:
                here = {f"{name}.jsonl": single}
            else:
                parts = (f"{name}/test_queries.jsonl", f"{name}/test_qrels.jsonl")
                here = {part: find_file(self.root, part) for part in parts}
            for logical, place in here.items():
                if place is None:
                    inside = sorted(entry.name for entry in self.root.iterdir())
                    raise MissingError(
                        f"{self.root} has no {logical}. It holds: {', '.join(inside[:30])}."
                        " Expected corpus.jsonl and for every language <language>.jsonl (id,"
                        " question, answers), or <language>/test_queries.jsonl (id, text) and"
                        " <language>/test_qrels.jsonl (qid, answers). To run only some languages,"
                        " say --subset."
                    )
                found[logical] = place
        return found


def _read(
    files: Mapping[str, Place], language: str
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Read one language: question id → text, and question id → answers.

    Raises:
        DamagedError: names file and line of what is wrong.
    """
    single = files.get(f"{language}.jsonl")
    asked = single or files[f"{language}/test_queries.jsonl"]
    answered = single or files[f"{language}/test_qrels.jsonl"]
    questions: dict[str, str] = {}
    for number, record in records(asked):
        key = str(record.get("id", ""))
        if not key or key in questions:
            what = f"id '{key}' is used twice" if key else "no id"
            raise DamagedError(f"{asked}, line {number}: {what}.")
        questions[key] = text_of(record, "question" if single else "text", asked, number)
    answers: dict[str, tuple[str, ...]] = {}
    for number, record in records(answered):
        key = str(record.get("id" if single else "qid", ""))
        texts = record.get("answers")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise DamagedError(f"{answered}, line {number}: answers is no list of texts.")
        if key not in questions:
            raise DamagedError(f"{answered}, line {number}: question '{key}' is not in {asked}.")
        answers[key] = tuple(texts)
    if missing := [key for key in questions if key not in answers]:
        raise DamagedError(
            f"{answered}: no answers of {len(missing)} questions of {asked}, such as"
            f" '{missing[0]}'."
        )
    if not questions:
        raise DamagedError(f"{asked} is empty: expected one JSON object a line.")
    return questions, answers


def answer_task() -> type[AbsTaskRetrieval]:
    """Return the base class of tasks that are judged by answer strings."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    class AnswerRetrieval(AbsTaskRetrieval):
        """Keeps of mteb's scores only those that mean something without judged passages."""

        answers: Mapping[str, Mapping[str, Sequence[str]]] = {}
        k_values = (1, 3, 5, 10, 20, 100)

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._top_k = 1000  # as deep as every other task is searched

        def task_specific_scores(
            self,
            scores: dict[str, dict[str, float]],
            qrels: Any,
            results: dict[str, dict[str, float]],
            hf_split: str,
            hf_subset: str,
        ) -> dict[str, float]:
            """Find each question's first passage with an answer and make it the relevant one."""
            corpus = self.dataset[hf_subset][hf_split]["corpus"]
            rows = {key: row for row, key in enumerate(corpus["id"])}
            ranks: list[float] = []
            for question, answers in self.answers[hf_subset].items():
                run = results.get(question, {})
                head = ranked(run, _DEPTH)
                texts = (_text(corpus[rows[document]]) for document in head)
                holding = (n for n, text in enumerate(texts) if has_answer(text, answers))
                first = next(holding, None)
                qrels[question] = {_NONE if first is None else head[first]: 1}
                ranks.append(float("inf") if first is None else first + 1)
            found = {}
            for k in self.k_values:
                found[f"hit_rate_at_{k}"] = sum(rank <= k for rank in ranks) / len(ranks)
                within = [1 / rank if rank <= k else 0.0 for rank in ranks]
                found[f"mrr_at_{k}"] = sum(within) / len(ranks)
            return found

        def _evaluate_subset(self, *args: Any, **kwargs: Any) -> Any:
            whole = super()._evaluate_subset(*args, **kwargs)
            kept = ("hit_rate_at_", "mrr_at_")
            return {key: value for key, value in whole.items() if key.startswith(kept)}

    return AnswerRetrieval


def has_answer(text: str, answers: Sequence[str]) -> bool:
    """Tell whether a passage holds one of some answers, as DPR and its successors decide it.

    Compared are tokens, letter case aside, in canonical decomposition (NFD): runs of letters,
    digits and combining marks, and single other visible characters. An answer without a token
    is in no passage.
    """
    tokens = _tokens(text)
    for answer in answers:
        wanted = _answer_tokens(answer)
        width = len(wanted)
        if width and any(
            tokens[at : at + width] == wanted for at in range(len(tokens) - width + 1)
        ):
            return True
    return False


@cache
def _pattern() -> Any:
    import regex

    return regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")


def _tokens(text: str) -> list[str]:
    return [token.lower() for token in _pattern().findall(unicodedata.normalize("NFD", text))]


_answer_tokens = cache(_tokens)


def _text(row: Mapping[str, Any]) -> str:
    return f"{row['title']} {row['text']}".strip()
