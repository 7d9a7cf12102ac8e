"""Read and check a retrieval data set of plain text files, in BEIR's layout or FlagEmbedding's.

::

    BEIR             corpus.jsonl   {"_id", "title", "text"}        (title may be absent)
                     queries.jsonl  {"_id", "text"}
                     qrels/<split>.tsv   query-id <TAB> corpus-id <TAB> score, with a header line
    FlagEmbedding    corpus.jsonl   {"id", "title", "text"}
                     <split>_queries.jsonl  {"id", "text"}
                     <split>_qrels.jsonl    {"qid", "docid", "relevance"}

Each file may be gzipped, and the whole folder may be a zip. The corpus streams from the file
into an Arrow table on disk and is memory-mapped from there: what stays in memory is eight bytes
a document.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bge_eval.data.files import (
    NotPlainError,
    Place,
    find_file,
    fingerprint,
    lines,
    plain_records,
    records,
    text_of,
)
from bge_eval.data.tables import TableWriter, open_table
from bge_eval.errors import DamagedError, MissingError
from bge_eval.records import Qrels

if TYPE_CHECKING:
    from datasets import Dataset

    from bge_eval.progress import Progress, Step

_ROWS_PER_BATCH = 4096
_QRELS_HEADER = ("query-id", "corpus-id", "score")

Judgement = tuple[int, str, str, str]
"""Line number, query id, document id, grade as it stands in the file."""


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
    """How one layout names its files and fields."""

    name: str
    """The layout's name in a run's identity."""
    id_key: str
    """The field that holds the id of a document or query."""
    queries: str
    """The queries' file; ``{split}`` stands for the split."""
    qrels: str
    """The judgements' file, likewise."""
    judgements: Callable[[Place], Iterator[Judgement]]
    """Reads the judgements' file."""


@dataclass(frozen=True, slots=True)
class RetrievalFolder:
    """A folder known to be in one of the layouts."""

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
        flag = any("_qrels.jsonl" in name for name in names)
        return RetrievalFolder(place, FLAG if flag else BEIR)

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
        """Return the files that some splits need, by their logical name.

        Raises:
            MissingError: one is not there; says which splits are.
        """
        needed = {"corpus.jsonl": None}
        for split in splits:
            needed |= {self._queries(split): None, self._qrels(split): None}
        found: dict[str, Place] = {}
        for name in needed:
            place = find_file(self.place, name)
            if place is not None:
                found[name] = place
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
        return found

    def fingerprint(self, splits: Iterable[str]) -> str:
        """Return 16 hexadecimal digits made from the content that these splits are scored on."""
        return fingerprint(self.files(splits))

    def corpus(self, scratch: Path, step: Step) -> Dataset:
        """Read and check the corpus alone; arguments and errors are those of `load`."""
        place = self.files(())["corpus.jsonl"]
        target = scratch / "corpus.arrow"
        return self._table(place, target, ("title", "text"), step.advance)[0]

    def load(
        self, splits: Sequence[str], scratch: Path, progress: Progress, *, dangling: bool = False
    ) -> dict[str, RetrievalSplit]:
        """Read and check everything that these splits need.

        Args:
            splits: split names.
            scratch: an empty folder for the memory-mapped tables; it must outlive the result.
            progress: told of the reading.
            dangling: accept (and report) judgements of documents that the corpus lacks.

        Returns:
            Split name → its data; the corpus is shared.

        Raises:
            DamagedError: names file and line of what is wrong.
            MissingError: a file is not there.
        """
        files = self.files(splits)
        with progress.step("load", None, "documents") as step:
            corpus, known = self._table(
                files["corpus.jsonl"], scratch / "corpus.arrow", ("title", "text"), step.advance
            )
        documents = np.sort(known)
        queries: dict[str, Dataset] = {}
        result: dict[str, RetrievalSplit] = {}
        for split in splits:
            name = self._queries(split)
            if name not in queries:
                target = scratch / f"queries-{len(queries)}.arrow"
                queries[name], _ = self._table(files[name], target, ("text",))
            ids = list(queries[name]["id"])
            place = files[self._qrels(split)]
            qrels, lost = self._read_qrels(place, name, set(ids), documents)
            if lost:
                _report_dangling(place, lost, progress, accepted=dangling)
            judged = [row for row, query in enumerate(ids) if query in qrels]
            result[split] = RetrievalSplit(corpus, queries[name].select(judged), qrels)
        return result

    def _queries(self, split: str) -> str:
        return self.dialect.queries.format(split=split)

    def _qrels(self, split: str) -> str:
        return self.dialect.qrels.format(split=split)

    def _records(self, place: Place) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Yield (line number, id, record), checking that there is an id."""
        for number, record in records(place):
            key = record.get(self.dialect.id_key)
            if isinstance(key, int) and not isinstance(key, bool):
                key = str(key)
            if not isinstance(key, str) or not key:
                raise DamagedError(
                    f"{place}, line {number}: no {self.dialect.id_key} (found the keys"
                    f" {', '.join(map(str, record))})."
                )
            yield number, key, record

    def _table(
        self,
        place: Place,
        target: Path,
        columns: tuple[str, ...],
        advance: Callable[[int], None] = lambda count: None,
    ) -> tuple[Dataset, npt.NDArray[np.int64]]:
        """Stream a jsonl file into a memory-mapped table; also return a hash of every id."""
        names = (self.dialect.id_key, *columns)
        known = _parsed(place, target, names, advance)
        if known is None:
            known = self._line_by_line(place, target, columns, advance)
        if not len(known):
            raise DamagedError(f"{place} is empty: expected one JSON object a line.")
        self._refuse_duplicates(place, known)
        return open_table(target), known

    def _line_by_line(
        self, place: Place, target: Path, columns: tuple[str, ...], advance: Callable[[int], None]
    ) -> npt.NDArray[np.int64]:
        """Read what is not plain: either it can be taken all the same, or the fault has a line."""
        import pyarrow as pa

        schema = pa.schema([(name, pa.string()) for name in ("id", *columns)])
        hashes = array("q")
        rows: dict[str, list[str]] = {name: [] for name in schema.names}
        with TableWriter(target, schema) as table:

            def flush() -> None:
                table.write(pa.record_batch([rows[name] for name in schema.names], schema))
                advance(len(rows["id"]))
                for values in rows.values():
                    values.clear()

            for number, key, record in self._records(place):
                hashes.append(hash(key))
                rows["id"].append(key)
                for name in columns:
                    rows[name].append(text_of(record, name, place, number))
                if len(rows["id"]) == _ROWS_PER_BATCH:
                    flush()
            if rows["id"]:
                flush()
        return np.frombuffer(hashes, np.int64)

    def _refuse_duplicates(self, place: Place, hashes: npt.NDArray[np.int64]) -> None:
        """Raise if an id stands twice. Equal hashes only say where to look; the ids decide."""
        ordered = np.sort(hashes)
        suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
        if not suspects:
            return
        seen: dict[str, int] = {}
        for number, key, _ in self._records(place):
            if hash(key) not in suspects:
                continue
            if key in seen:
                raise DamagedError(
                    f"{place}, line {number}: {self.dialect.id_key} '{key}' was already used in"
                    f" line {seen[key]}."
                )
            seen[key] = number

    def _read_qrels(
        self, place: Place, query_file: str, queries: set[str], documents: npt.NDArray[np.int64]
    ) -> tuple[Qrels, list[tuple[str, int]]]:
        """Read judgements; also return (document, line) of those outside the corpus.

        ``documents`` are the sorted hashes of the corpus ids: 64 bits, so that taking a missing
        document for a present one is as good as impossible.
        """
        qrels: Qrels = {}
        lost: list[tuple[str, int]] = []
        for number, query, document, grade in self.dialect.judgements(place):
            try:
                score = int(grade)
            except ValueError as error:
                raise DamagedError(
                    f"{place}, line {number}: the score '{grade}' is no integer."
                ) from error
            if query not in queries:
                raise DamagedError(
                    f"{place}, line {number}: query '{query}' is not in {query_file}."
                )
            judged = qrels.setdefault(query, {})
            if judged.get(document, score) != score:
                raise DamagedError(
                    f"{place}, line {number}: '{query}' and '{document}' were already judged"
                    f" {judged[document]}, now {score}."
                )
            judged[document] = score
            key = hash(document)
            spot = int(np.searchsorted(documents, key))
            if spot == len(documents) or int(documents[spot]) != key:
                lost.append((document, number))
        if not qrels:
            raise DamagedError(f"{place} holds no judgements.")
        return qrels, lost


def _parsed(
    place: Place, target: Path, names: Sequence[str], advance: Callable[[int], None]
) -> npt.NDArray[np.int64] | None:
    """Write the table with Arrow's parser, several times as fast as line by line.

    ``names`` begins with the id's. Returns a hash of every id, or None where the file is anything
    but one object a line with an id and texts that are strings.
    """
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in ("id", *names[1:])])
    hashes = array("q")
    plain = False
    with TableWriter(target, schema) as table:
        try:
            for batch in plain_records(place, names):
                texts = [
                    column.fill_null("") if name == "title" else column
                    for name, column in zip(names, batch.columns, strict=True)
                ]
                ids = texts[0].to_pylist()
                if not all(ids) or any(column.null_count for column in texts):
                    break
                hashes.extend(map(hash, ids))
                table.write(pa.record_batch(texts, schema))
                advance(len(ids))
            else:
                plain = True
        except NotPlainError:
            pass
    if plain:
        return np.frombuffer(hashes, np.int64)
    # It begins again from the first line.
    advance(-len(hashes))
    return None


def _report_dangling(
    place: Place, lost: list[tuple[str, int]], progress: Progress, *, accepted: bool
) -> None:
    document, line = lost[0]
    if not accepted:
        raise DamagedError(
            f"{place}, line {line}: document '{document}' is not in corpus.jsonl ({len(lost)} such"
            " in the file). If the set is published like that, --allow-dangling-qrels keeps them"
            " as documents that cannot be found."
        )
    progress.note(
        f"{place}: {len(lost)} judged documents are not in the corpus and count as never found."
    )


def _tsv_judgements(place: Place) -> Iterator[Judgement]:
    header = True
    for number, line in lines(place):
        cells = [cell.strip() for cell in line.split("\t")]
        if header:
            header = False
            if tuple(cells[:3]) != _QRELS_HEADER:
                raise DamagedError(
                    f"{place}, line {number}: expected the header"
                    f" 'query-id<TAB>corpus-id<TAB>score', found '{line[:60]}'."
                )
            continue
        if len(cells) != 3:
            raise DamagedError(
                f"{place}, line {number}: expected three columns with tabs between, found"
                f" {len(cells)} ('{line[:60]}')."
            )
        yield number, cells[0], cells[1], cells[2]


def _jsonl_judgements(place: Place) -> Iterator[Judgement]:
    for number, record in records(place):
        missing = [key for key in ("qid", "docid", "relevance") if key not in record]
        if missing:
            raise DamagedError(f"{place}, line {number}: no {missing[0]}.")
        yield (
            number,
            str(record["qid"]),
            str(record["docid"]),
            json.dumps(record["relevance"]).strip('"'),
        )


BEIR = Dialect("beir", "_id", "queries.jsonl", "qrels/{split}.tsv", _tsv_judgements)
"""BEIR's own layout."""

FLAG = Dialect(
    "flagembedding", "id", "{split}_queries.jsonl", "{split}_qrels.jsonl", _jsonl_judgements
)
"""The layout of FlagEmbedding's evaluation."""
