"""Retrieval judged by answer strings: a passage is relevant if it contains an answer.

::

    <folder>/corpus.jsonl                       {"id", "title", "text"}, one for all languages
    <folder>/<language>/test_queries.jsonl      {"id", "text"}
    <folder>/<language>/test_qrels.jsonl        {"qid", "answers": ["…"]}
    or <folder>/<language>.jsonl                {"id", "question", "answers": ["…"]}

BGE-M3's authors evaluate MKQA in this way. Their Recall@20 and Recall@100 are the share of
questions for which one of the first k passages contains an answer. That is Success@k, so the scores
are stored under mteb's ``hit_rate_at_k``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from bge_eval.data.files import Place, find_file, fingerprint, records, text_of
from bge_eval.data.retrieval_folder import FLAG, RetrievalFolder
from bge_eval.data.scratch import scratch_folder
from bge_eval.data.sources import DataIdentity, LocalSource, attached
from bge_eval.errors import DamagedError, MissingError
from bge_eval.progress import Progress
from bge_eval.search.ranking import ranked

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask
    from mteb.abstasks.retrieval import AbsTaskRetrieval

_DEPTH = 100
"""Number of top passages that are searched for answers."""
_NONE = "(no passage with an answer)"
"""Relevant document of a question without an answer in its top passages."""


@dataclass(frozen=True, slots=True)
class AnswersSource(LocalSource):
    """A corpus, and the questions with their answers in each language."""

    languages: tuple[str, ...]
    """The task's subsets."""

    def identity(self, task: AbsTask) -> DataIdentity:
        """Fingerprint the corpus and the languages that are scored."""
        return DataIdentity(
            "answers", fingerprint(self._files()), tuple(task.eval_splits), self.languages
        )

    def check(self, task: AbsTask) -> None:
        """Raise MissingError if a file is absent."""
        self._files()

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Read corpus, questions and answers into the task."""
        from datasets import Dataset

        files = self._files()
        with scratch_folder() as folder:
            with progress.step("load", None, "documents") as step:
                corpus = RetrievalFolder(self.root, FLAG).corpus(folder, step)
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
            with attached(task, dataset):
                yield

    def _files(self) -> dict[str, Place]:
        """Return logical name → file.

        Raises:
            MissingError: a file is absent; the message lists the folder's content.
        """
        files: dict[str, Place] = {}
        for name in ("corpus.jsonl", *self.languages):
            if name == "corpus.jsonl":
                parts = {name: find_file(self.root, name)}
            elif (single := find_file(self.root, f"{name}.jsonl")) is not None:
                parts = {f"{name}.jsonl": single}
            else:
                names = (f"{name}/test_queries.jsonl", f"{name}/test_qrels.jsonl")
                parts = {part: find_file(self.root, part) for part in names}
            for logical, place in parts.items():
                if place is None:
                    content = sorted(entry.name for entry in self.root.iterdir())
                    raise MissingError(
                        f"{self.root} has no {logical}. It holds: {', '.join(content[:30])}."
                        " Expected corpus.jsonl and for every language <language>.jsonl (id,"
                        " question, answers), or <language>/test_queries.jsonl (id, text) and"
                        " <language>/test_qrels.jsonl (qid, answers). To run only some languages,"
                        " add --subset."
                    )
                files[logical] = place
        return files


def answers_source(task: AbsTask, root: Place, dangling: bool) -> AnswersSource | None:
    """Return the source of a task that is judged by answer strings."""
    return AnswersSource(root, tuple(task.hf_subsets)) if hasattr(task, "answers") else None


def _read(
    files: Mapping[str, Place], language: str
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Read the questions and answers of one language: id → text, and id → answers.

    Raises:
        DamagedError: a line is invalid; the message names file and line.
    """
    single = files.get(f"{language}.jsonl")
    question_file = single or files[f"{language}/test_queries.jsonl"]
    answer_file = single or files[f"{language}/test_qrels.jsonl"]
    questions: dict[str, str] = {}
    for number, record in records(question_file):
        key = str(record.get("id", ""))
        if not key or key in questions:
            what = f"id '{key}' is used twice" if key else "no id"
            raise DamagedError(f"{question_file}, line {number}: {what}.")
        questions[key] = text_of(record, "question" if single else "text", question_file, number)
    answers: dict[str, tuple[str, ...]] = {}
    for number, record in records(answer_file):
        key = str(record.get("id" if single else "qid", ""))
        texts = record.get("answers")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise DamagedError(f"{answer_file}, line {number}: answers is no list of texts.")
        if key not in questions:
            raise DamagedError(
                f"{answer_file}, line {number}: question '{key}' is not in {question_file}."
            )
        answers[key] = tuple(texts)
    if missing := [key for key in questions if key not in answers]:
        raise DamagedError(
            f"{answer_file}: no answers to {len(missing)} questions of {question_file}, such as"
            f" '{missing[0]}'."
        )
    if not questions:
        raise DamagedError(f"{question_file} is empty: expected one JSON object a line.")
    return questions, answers


def answer_task() -> type[AbsTaskRetrieval]:
    """Return the base class of tasks that are judged by answer strings."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    class AnswerRetrieval(AbsTaskRetrieval):
        """Retrieval measured by the rank of the first passage with an answer."""

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
            """Make each question's first passage with an answer the relevant one, and score it."""
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
            measured = {}
            for k in self.k_values:
                measured[f"hit_rate_at_{k}"] = sum(rank <= k for rank in ranks) / len(ranks)
                within = [1 / rank if rank <= k else 0.0 for rank in ranks]
                measured[f"mrr_at_{k}"] = sum(within) / len(ranks)
            return measured

        def _evaluate_subset(self, *args: Any, **kwargs: Any) -> Any:
            whole = super()._evaluate_subset(*args, **kwargs)
            prefixes = ("hit_rate_at_", "mrr_at_")
            return {key: value for key, value in whole.items() if key.startswith(prefixes)}

    return AnswerRetrieval


def has_answer(text: str, answers: Sequence[str]) -> bool:
    """Tell whether a passage contains one of the answers, by the rule of DPR.

    Both are compared as lower-case tokens in canonical decomposition (NFD). A token is a run of
    letters, digits and combining marks, or a single other visible character. An answer without a
    token is in no passage.
    """
    tokens = _tokens(text)
    for answer in answers:
        answer_tokens = _answer_tokens(answer)
        width = len(answer_tokens)
        if width and any(
            tokens[at : at + width] == answer_tokens for at in range(len(tokens) - width + 1)
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
