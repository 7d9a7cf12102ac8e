"""Retrieval tasks as plain text files, in BEIR's layout or FlagEmbedding's.

::

    BEIR             corpus.jsonl   {"_id", "title", "text"}        (title may be absent)
                     queries.jsonl  {"_id", "text"}
                     qrels/<split>.tsv   query-id <TAB> corpus-id <TAB> score, or TREC's four
    FlagEmbedding    corpus.jsonl   {"id", "title", "text"}
                     <split>_queries.jsonl  {"id", "text"}
                     <split>_qrels.jsonl    {"qid", "docid", "relevance"}

Each file may be gzipped, and the folder may be a zip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bge_eval.data.files import Place, find_file, fingerprint
from bge_eval.data.jsonl_table import read_table
from bge_eval.data.plausibility import is_published_gap
from bge_eval.data.qrels import (
    jsonl_judgements,
    read_qrels,
    report_dangling,
    tsv_judgements,
)
from bge_eval.data.scratch import scratch_folder
from bge_eval.data.sources import (
    DataIdentity,
    LocalSource,
    attached,
    is_retrieval,
    require_subsets,
    subset_folders,
)
from bge_eval.errors import MissingError
from bge_eval.progress import Progress
from bge_eval.records import Qrels
from bge_eval.results.judgements import Judgement

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks import AbsTask

    from bge_eval.progress import Step


@dataclass(frozen=True, slots=True)
class RetrievalSplit:
    """One split of a retrieval task, ready for mteb."""

    corpus: Dataset
    """Memory-mapped, columns id, title, text."""
    queries: Dataset
    """The queries that the split's qrels judge, in the file's order; columns id, text."""
    qrels: Qrels
    """The judgements."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The names of files and fields in one layout."""

    name: str
    """The layout's name in a run's identity."""
    id_key: str
    """The field that holds the id of a document or query."""
    queries: str
    """The queries' file; ``{split}`` stands for the split."""
    qrels: str
    """The judgements' file; ``{split}`` stands for the split."""
    judgements: Callable[[Place], Iterator[Judgement]]
    """Reads the judgements' file."""
    qrels_mark: str = ""
    """Part of a file name that only this layout has; "" for the layout of all other folders."""


@dataclass(frozen=True, slots=True)
class RetrievalFolder:
    """A folder in one of the layouts."""

    place: Place
    """The folder, or a folder inside a zip."""
    dialect: Dialect
    """Its layout."""

    @staticmethod
    def recognise(place: Place) -> RetrievalFolder | None:
        """Return the folder if it has a corpus file, else None."""
        if not find_file(place, "corpus.jsonl"):
            return None
        names = [entry.name for entry in place.iterdir()]
        dialect = next(d for d in DIALECTS if any(d.qrels_mark in name for name in names))
        return RetrievalFolder(place, dialect)

    def splits(self) -> list[str]:
        """Return the names of the splits that have qrels."""
        before, after = self.dialect.qrels.split("{split}")
        folder, _, prefix = before.rpartition("/")
        place = self.place.joinpath(folder) if folder else self.place
        names = (
            [entry.name.removesuffix(".gz") for entry in place.iterdir()]
            if (place.is_dir())
            else []
        )
        return sorted(
            {
                name.removeprefix(prefix).removesuffix(after)
                for name in names
                if name.startswith(prefix) and name.endswith(after)
            }
        )

    def files(self, splits: Iterable[str]) -> dict[str, Place]:
        """Return logical name → file for the files that some splits need.

        Raises:
            MissingError: a file is absent; the message lists the splits that have qrels.
        """
        needed = ["corpus.jsonl"]
        for split in splits:
            needed += [self._queries(split), self._qrels(split)]
        files: dict[str, Place] = {}
        for name in dict.fromkeys(needed):
            place = find_file(self.place, name)
            if place is not None:
                files[name] = place
            elif "qrels" in name:
                present = ", ".join(self.splits()) or "none"
                raise MissingError(
                    f"{self.place} has no {name} (or {name}.gz). Splits with qrels there:"
                    f" {present}."
                )
            else:
                raise MissingError(
                    f"{self.place} has no {name} (or {name}.gz). The BEIR layout is corpus.jsonl,"
                    " queries.jsonl and qrels/<split>.tsv."
                )
        return files

    def fingerprint(self, splits: Iterable[str]) -> str:
        """Return a hash of the content that some splits are scored on: 16 hexadecimal digits."""
        return fingerprint(self.files(splits))

    def queries_file(self, split: str) -> Place:
        """Return the file with the queries of a split; its errors are those of `files`."""
        return self.files([split])[self._queries(split)]

    def corpus_file(self) -> Place:
        """Return the file with the corpus; its errors are those of `files`."""
        return self.files(())["corpus.jsonl"]

    def corpus(self, scratch: Path, step: Step) -> Dataset:
        """Read and check only the corpus; arguments and errors are those of `load`."""
        place = self.files(())["corpus.jsonl"]
        target = scratch / "corpus.arrow"
        return read_table(place, self.dialect.id_key, target, ("title", "text"), step.advance)[0]

    def load(
        self,
        splits: Sequence[str],
        scratch: Path,
        progress: Progress,
        *,
        dangling: bool = False,
        published: Callable[[str, int, int], bool] = lambda split, documents, missing: False,
    ) -> dict[str, RetrievalSplit]:
        """Read and check corpus, queries and qrels of some splits.

        Args:
            splits: split names.
            scratch: an empty folder for the memory-mapped tables; it must outlive the result.
            progress: receives the number of documents read.
            dangling: accept (and report) judgements of documents that the corpus lacks.
            published: tells of a split, its number of documents and the number of judged ones
                that it lacks whether the data set is published like that.

        Returns:
            Split name → its data; the corpus is shared.

        Raises:
            DamagedError: a line is invalid; the message names file and line.
            MissingError: a file is absent.
        """
        files = self.files(splits)
        with progress.step("load", None, "documents") as step:
            corpus, hashes = read_table(
                files["corpus.jsonl"],
                self.dialect.id_key,
                scratch / "corpus.arrow",
                ("title", "text"),
                step.advance,
            )
        documents = np.sort(hashes)
        queries: dict[str, Dataset] = {}
        result: dict[str, RetrievalSplit] = {}
        for split in splits:
            name = self._queries(split)
            if name not in queries:
                target = scratch / f"queries-{len(queries)}.arrow"
                queries[name], _ = read_table(files[name], self.dialect.id_key, target, ("text",))
            ids = list(queries[name]["id"])
            place = files[self._qrels(split)]
            qrels, absent = read_qrels(
                self.dialect.judgements(place), place, name, set(ids), documents
            )
            if absent:
                missing = len({document for document, _ in absent})
                known = published(split, len(corpus), missing)
                report_dangling(place, absent, progress, accepted=dangling, published=known)
            judged = [row for row, query in enumerate(ids) if query in qrels]
            result[split] = RetrievalSplit(corpus, queries[name].select(judged), qrels)
        return result

    def _queries(self, split: str) -> str:
        return self.dialect.queries.format(split=split)

    def _qrels(self, split: str) -> str:
        return self.dialect.qrels.format(split=split)


@dataclass(frozen=True, slots=True)
class RetrievalSource(LocalSource):
    """The text files of a retrieval task, in one folder for each subset."""

    folders: Mapping[str, RetrievalFolder]
    """Subset → its folder."""
    dangling: bool = False
    """Accept judgements of documents that the corpus lacks."""

    def identity(self, task: AbsTask) -> DataIdentity:
        """Fingerprint the files of the task's splits."""
        splits = tuple(task.eval_splits)
        prints = [folder.fingerprint(splits) for folder in self.folders.values()]
        layout = next(iter(self.folders.values())).dialect.name
        return DataIdentity(layout, "+".join(prints), splits, tuple(self.folders))

    def check(self, task: AbsTask) -> None:
        """Raise MissingError if a file is absent."""
        for folder in self.folders.values():
            folder.files(task.eval_splits)

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Read the folders into the task; the memory-mapped tables are removed at the end."""
        with scratch_folder() as scratch:
            dataset: dict[str, dict[str, Any]] = {}
            for number, (subset, folder) in enumerate(self.folders.items()):
                place = scratch / str(number)
                place.mkdir()
                splits = folder.load(
                    task.eval_splits,
                    place,
                    progress,
                    dangling=self.dangling,
                    published=partial(is_published_gap, task, subset),
                )
                dataset[subset] = {
                    split: {
                        "corpus": data.corpus,
                        "queries": data.queries,
                        "relevant_docs": data.qrels,
                        "top_ranked": None,
                    }
                    for split, data in splits.items()
                }
            with attached(task, dataset):
                yield


def retrieval_source(task: AbsTask, root: Place, dangling: bool) -> RetrievalSource | None:
    """Return the source of a folder with corpus, queries and qrels.

    Raises:
        MissingError: a subset is absent, or the task needs more than these files.
    """
    if not is_retrieval(task):
        return None
    recognised = {
        subset: RetrievalFolder.recognise(place)
        for subset, place in subset_folders(task, root).items()
        if place.is_dir()
    }
    folders = {subset: folder for subset, folder in recognised.items() if folder}
    if not folders:
        return None
    require_subsets(task, root, list(folders), retrieval_marker(task))
    if task.metadata.type != "Retrieval":
        raise MissingError(
            f"{root} holds a corpus, queries and qrels, but {task.metadata.name} is a task of type"
            f" {task.metadata.type}, which needs candidate lists or instructions too: give a copy"
            " of its dataset repository (hf download --repo-type dataset --local-dir …)."
        )
    return RetrievalSource(root, folders, dangling)


def retrieval_marker(task: AbsTask) -> str:
    """Return the file by which a folder with a corpus is recognised."""
    return "corpus.jsonl (or corpus.jsonl.gz)" if is_retrieval(task) else ""


def retrieval_collection(folder: Path) -> tuple[str, list[str]] | None:
    """Return the task type and the splits of a user's folder with corpus, queries and qrels.

    Raises:
        MissingError: it has a corpus, but no qrels.
    """
    plain = RetrievalFolder.recognise(folder)
    if plain is None:
        return None
    if not (splits := plain.splits()):
        raise MissingError(
            f"{folder} holds a corpus and queries, and no judgements: expected qrels/<split>.tsv."
        )
    return "Retrieval", splits


BEIR = Dialect("beir", "_id", "queries.jsonl", "qrels/{split}.tsv", tsv_judgements)
"""BEIR's own layout."""

FLAG = Dialect(
    "flagembedding",
    "id",
    "{split}_queries.jsonl",
    "{split}_qrels.jsonl",
    jsonl_judgements,
    qrels_mark="_qrels.jsonl",
)
"""The layout of FlagEmbedding's evaluation."""

DIALECTS = (FLAG, BEIR)
"""Every layout with a corpus file, in the order in which they are tried; BEIR's is the rest."""
