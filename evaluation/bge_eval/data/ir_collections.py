"""Test collections of ir_datasets, named ``ir:<id>``, such as ``ir:msmarco-passage/trec-dl-2019``.

A collection needs documents, queries and judgements. What is read, and how:

- A document's or query's text is its ``default_text()``, with which ir_datasets states the fields
  that count (title and body; a TREC topic's title), else its field ``text``. One with neither is
  refused.
- Only judged queries are run. A judgement's grade is ``relevance``; what nobody judged is not
  relevant.
- The official measures that ir_datasets states join mteb's, computed by ir_measures; the first is
  the main score. Without any it is nDCG@10.

MacAvaney et al., "Simplified Data Wrangling with ir_datasets", SIGIR 2021.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.data.collection import UNSTATED
from bge_eval.data.integrity import check_split
from bge_eval.data.scratch import scratch_folder
from bge_eval.data.sources import DataIdentity, attached
from bge_eval.data.tables import TableWriter, open_table
from bge_eval.errors import (
    BgeEvalError,
    DamagedError,
    MissingError,
    UsageError,
    did_you_mean,
    one_line,
)
from bge_eval.measures.measure import Measure, parse_measure
from bge_eval.measures.mteb_keys import CUTOFFS, mteb_key
from bge_eval.measures.rescore import judge
from bge_eval.progress import Progress
from bge_eval.records import Qrels

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks import AbsTask

PREFIX = "ir:"
"""What the name of a collection of ir_datasets begins with."""
SPLIT = "test"
"""The split under which its scores are filed."""
_ROWS = 4096
_PAIRS = (
    "en:eng-Latn zh:zho-Hans ru:rus-Cyrl es:spa-Latn fa:fas-Arab ar:ara-Arab fr:fra-Latn"
    " id:ind-Latn ja:jpn-Jpan it:ita-Latn pt:por-Latn de:deu-Latn fi:fin-Latn ko:kor-Hang"
    " sw:swa-Latn bn:ben-Beng te:tel-Telu th:tha-Thai hi:hin-Deva vi:vie-Latn yo:yor-Latn"
    " ca:cat-Latn cs:ces-Latn nl:nld-Latn nn:nno-Latn no:nor-Latn pl:pol-Latn ro:ron-Latn"
    " sv:swe-Latn tl:tgl-Latn tr:tur-Latn uk:ukr-Cyrl"
)
_LANGUAGES = dict(pair.split(":") for pair in _PAIRS.split())
"""ir_datasets' code of a language:mteb's, for the languages of its collections."""
_NO_LANGUAGE = "eng-Latn"
"""For a collection that states none, as for a folder of the user's own."""


class _OfflineError(BaseException):
    """ir_datasets would open a connection. No Exception, which it would log and pass over."""


def task_name(name: str) -> str:
    """Return the name of a collection's task, which is the name of its result's file.

    Args:
        name: ``ir:vaswani``; the task is ``ir.vaswani``.
    """
    return name.replace(":", ".").replace("/", ".")


def ir_task(name: str) -> AbsTask:
    """Return a fresh mteb task for a collection of ir_datasets; nothing is downloaded.

    Its class and metadata are made here, since importing mteb takes seconds.

    Args:
        name: ``ir:`` and the collection's id.

    Raises:
        UsageError: there is no such collection, or it lacks queries or judgements.
        MissingError: ir_datasets is not installed.
    """
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    class IrMetadata(TaskMetadata):
        """A task whose statistics are those of ir_datasets."""

        @property
        def descriptive_stats(self) -> Any:
            """Return mteb's structure; queries are not counted, since some are not judged."""
            return {SPLIT: {"num_documents": count}} if count else {}

    dataset = _load(name)
    count = _count(dataset)
    measures = _official(dataset)
    keys = {measure: mteb_key(measure) for measure in measures}
    stored = {m: key for m, key in keys.items() if key is not None and m.cutoff in CUTOFFS}
    others = [measure for measure in measures if measure not in stored]

    class IrRetrieval(AbsTaskRetrieval):
        """A test collection with measures of its own."""

        def task_specific_scores(
            self,
            scores: dict[str, dict[str, float]],
            qrels: Any,
            results: dict[str, dict[str, float]],
            hf_split: str,
            hf_subset: str,
        ) -> dict[str, float]:
            """Return the official measures that mteb does not compute, by their own names."""
            values = judge(results, qrels, others) if others else {}
            return {str(measure): value.mean for measure, value in values.items()}

    main = stored.get(measures[0], str(measures[0])) if measures else "ndcg_at_10"
    IrRetrieval.metadata = IrMetadata(
        name=task_name(name),
        description=f"The collection {name.removeprefix(PREFIX)} of ir_datasets.",
        reference=f"https://ir-datasets.com/{name.removeprefix(PREFIX).partition('/')[0]}.html",
        dataset={"path": f"local/{name}", "revision": "ir_datasets"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=[SPLIT],
        eval_langs=[_LANGUAGES.get(_language(dataset), _NO_LANGUAGE)],
        main_score=main,
        **UNSTATED,
    )
    task = IrRetrieval()
    assert isinstance(task, AbsTaskRetrieval)
    return task


@dataclass(frozen=True, slots=True)
class IrSource:
    """The data of a collection, in the folder of ir_datasets or downloaded there."""

    name: str
    """``ir:`` and the collection's id."""
    offline: bool = False
    """Open no connection."""
    dangling: bool = False
    """Accept judgements of documents that the corpus lacks."""

    @property
    def origin(self) -> str:
        """Return the collection's name and the folder of ir_datasets."""
        return f"{self.name}, which ir_datasets keeps in {home()}"

    @property
    def is_copy(self) -> bool:
        """Return True: ir_datasets verifies what it downloads, and not what lies in its folder."""
        return True

    def identity(self, task: AbsTask) -> DataIdentity:
        """Fingerprint the content: documents, judged queries and judgements, in their order."""
        with _access(self.name, offline=self.offline):
            content = _fingerprint(self.name)
        return DataIdentity("ir_datasets", content, (SPLIT,), ("default",))

    def check(self, task: AbsTask) -> None:
        """Raise MissingError if data are absent and may not be downloaded; read no more of them."""
        if not self.offline:
            return
        with _access(self.name, offline=True):
            dataset = _load(self.name)
            for rows in (dataset.qrels_iter(), dataset.queries_iter(), dataset.docs_iter()):
                next(iter(rows), None)

    def fetch(self) -> Path:
        """Let ir_datasets download all files that are absent, and return its folder.

        Raises:
            MissingError: a file cannot be downloaded.
        """
        with _access(self.name, offline=False):
            _fingerprint(self.name)
        return home()

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Stream the collection into the task; the memory-mapped tables are removed at the end."""
        with scratch_folder() as scratch:
            with _access(self.name, offline=self.offline):
                dataset = _load(self.name)
                qrels = _qrels(dataset, self.name)
                with progress.step("load", None, "documents") as step:
                    rows = _texts(dataset.docs_iter(), "doc_id", self.name)
                    corpus = _table(rows, scratch / "corpus.arrow", ("title", "text"), step.advance)
                rows = _texts(dataset.queries_iter(), "query_id", self.name)
                judged = ((key, text) for key, text in rows if key in qrels)
                queries = _table(judged, scratch / "queries.arrow", ("text",))
            split = {
                "corpus": corpus,
                "queries": queries,
                "relevant_docs": qrels,
                "top_ranked": None,
            }
            if absent := check_split(split, self.name, dangling=self.dangling):
                progress.note(
                    f"{self.name}: {absent} judged documents are not in the corpus; they count as"
                    " not retrieved."
                )
            with attached(task, {"default": {SPLIT: split}}):
                yield


def home() -> Path:
    """Return the folder of ir_datasets (IR_DATASETS_HOME)."""
    from ir_datasets.util import home_path

    return Path(home_path())


def _load(name: str) -> Any:
    """Return ir_datasets' object; its errors are those of `ir_task`."""
    try:
        import ir_datasets
    except ImportError as error:
        raise MissingError(f"{name} needs ir_datasets: pip install 'bge-eval[ir]'") from error
    identifier = name.removeprefix(PREFIX)
    try:
        dataset: Any = ir_datasets.load(identifier)
    except KeyError as error:
        near = did_you_mean(identifier, ir_datasets.registry)
        raise UsageError(
            f"ir_datasets has no collection '{identifier}'.{near} https://ir-datasets.com lists"
            " them."
        ) from error
    parts = {
        "documents": dataset.has_docs(),
        "queries": dataset.has_queries(),
        "judgements": dataset.has_qrels(),
    }
    if missing := [part for part, present in parts.items() if not present]:
        whole = [
            f"{PREFIX}{other}"
            for other in ir_datasets.registry
            if other.startswith(f"{identifier}/") and ir_datasets.registry[other].has_qrels()
        ]
        more = f" Collections in it with judgements: {', '.join(whole[:8])}." if whole else ""
        raise UsageError(f"{name} has no {' and no '.join(missing)} to evaluate on.{more}")
    return dataset


def _official(dataset: Any) -> list[Measure]:
    """Return the measures that ir_datasets states for a collection; [] if it states none.

    Raises:
        UsageError: none of ir_measures' tools that are installed computes one of them.
    """
    describe = getattr(dataset, "documentation", None)
    documentation = describe() if describe is not None else {}
    return [parse_measure(text) for text in (documentation or {}).get("official_measures") or ()]


def _language(dataset: Any) -> str:
    """Return ir_datasets' code of the documents' language; "" for none or several."""
    try:
        return str(dataset.docs_lang() or "")
    except (AttributeError, NotImplementedError):
        return ""


def _count(dataset: Any) -> int | None:
    """Return the number of documents that ir_datasets states; None if it states none."""
    describe = getattr(dataset, "docs_metadata", None)
    facts: Any = describe() if describe is not None else None
    return (facts or {}).get("count")


@contextmanager
def _access(name: str, *, offline: bool) -> Iterator[None]:
    """Read with ir_datasets, and translate its errors.

    Args:
        name: the collection.
        offline: refuse to open a connection.

    Raises:
        MissingError: data are absent and may not or cannot be downloaded, or a package that reads
            them is not installed.
    """
    import ir_datasets
    from ir_datasets.util import download

    requests = ir_datasets.lazy_libs.requests
    stream = download.GoogleCloudBucketStream.stream
    if offline:
        ir_datasets.lazy_libs.requests = _refuse
        download.GoogleCloudBucketStream.stream = _refuse
    try:
        yield
    except _OfflineError as error:
        raise MissingError(
            f"The data of {name} are not in {home()}, the folder of ir_datasets, and may not be"
            f" downloaded here. `bge-eval data fetch --tasks {name} --data-dir .` downloads them"
            " into it on a machine with a connection; copy that folder, and name it in"
            " IR_DATASETS_HOME."
        ) from error
    except BgeEvalError:
        raise
    except ImportError as error:
        raise MissingError(f"{name}: {one_line(error)}") from error
    except EOFError as error:  # it asks for a password, and nobody is there to type it
        raise MissingError(
            f"{name} needs a user name and a password. Put them in a file of"
            f" {home() / 'auth'}, as https://ir-datasets.com says."
        ) from error
    except FileNotFoundError as error:
        raise MissingError(
            f"{name} needs {error.filename or one_line(error)}, which ir_datasets cannot download:"
            " its owner gives it after an agreement. https://ir-datasets.com says how to get it."
        ) from error
    except (OSError, RuntimeError) as error:  # those of requests are OSErrors
        raise MissingError(
            f"{name} could not be downloaded or read by ir_datasets ({type(error).__name__}:"
            f" {one_line(error)}). The same command tries again."
        ) from error
    finally:
        ir_datasets.lazy_libs.requests = requests
        download.GoogleCloudBucketStream.stream = stream


def _refuse(*_: Any) -> Any:
    raise _OfflineError


@cache
def _fingerprint(name: str) -> str:
    """Return a hash of a collection's content, 16 hexadecimal digits; once for each process."""
    dataset = _load(name)
    qrels = _qrels(dataset, name)
    digest = hashlib.sha256()
    for key, text in _texts(dataset.docs_iter(), "doc_id", name):
        digest.update(f"{len(key)} {key} {len(text)} {text}\n".encode(errors="surrogatepass"))
    for key, text in _texts(dataset.queries_iter(), "query_id", name):
        if key in qrels:
            digest.update(f"{len(key)} {key} {text}\n".encode(errors="surrogatepass"))
    for query in sorted(qrels):
        digest.update(f"{query} {sorted(qrels[query].items())}\n".encode())
    return digest.hexdigest()[:16]


def _qrels(dataset: Any, name: str) -> Qrels:
    """Return the judgements.

    Raises:
        DamagedError: there are none, a grade is no whole number, or two contradict each other.
    """
    qrels: Qrels = {}
    for row in dataset.qrels_iter():
        query, document, value = str(row.query_id), str(row.doc_id), row.relevance
        if int(value) != value:
            raise DamagedError(
                f"{name}: the grade of query '{query}' and document '{document}' is {value}, and no"
                " whole number."
            )
        judged = qrels.setdefault(query, {})
        if judged.setdefault(document, int(value)) != int(value):
            raise DamagedError(
                f"{name} judges query '{query}' and document '{document}' with {judged[document]}"
                f" and with {int(value)}, as for several subtopics: no measure here counts them."
            )
    if not qrels:
        raise DamagedError(f"{name} holds no judgements.")
    return qrels


def _texts(rows: Iterator[Any], key: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield id and text of documents or queries.

    Raises:
        UsageError: they have no text by the rule.
    """
    read: Callable[[Any], str] | None = None
    for row in rows:
        if read is None:
            read = _reader(type(row), name)
        yield str(getattr(row, key)), read(row)


def _reader(kind: type, name: str) -> Callable[[Any], str]:
    """Return the function that gives the text of a document or query."""
    if hasattr(kind, "default_text"):
        return lambda row: str(row.default_text())
    fields: Sequence[str] = getattr(kind, "_fields", ())
    if "text" in fields:
        return lambda row: str(row.text)
    raise UsageError(
        f"{name}: ir_datasets does not state which field of {kind.__name__} is its text. Its"
        f" fields are {', '.join(fields)}; make a folder of your own with the text that counts."
    )


def _table(
    rows: Iterator[tuple[str, str]],
    target: Path,
    columns: Sequence[str],
    advance: Callable[[int], None] = lambda count: None,
) -> Dataset:
    """Stream ids and texts into a memory-mapped table; a title is part of the text."""
    import pyarrow as pa

    names = ("id", *columns)
    schema = pa.schema([(name, pa.string()) for name in names])
    with TableWriter(target, schema) as table:
        for batch in _batches(rows):
            ids, texts = [key for key, _ in batch], [text for _, text in batch]
            values: Mapping[str, list[str]] = {"id": ids, "text": texts, "title": [""] * len(ids)}
            table.write(pa.record_batch([values[name] for name in names], schema))
            advance(len(ids))
    return open_table(target)


def _batches(rows: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _ROWS:
            yield batch
            batch = []
    if batch:
        yield batch
