"""``bge-eval mistakes``: queries on which a run fails, and training data from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.formats.registry import Format, write
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.tasks import split_names
from bge_eval.cli.quiet import prepare

if TYPE_CHECKING:
    from bge_eval.cli.chosen import ChosenTask
    from bge_eval.cli.mistaken import Example, TaskMistakes
    from bge_eval.measures.measure import Measure
    from bge_eval.mistakes.groups import Group
    from bge_eval.mistakes.queries import JudgedQuery
    from bge_eval.progress import Progress
    from bge_eval.records import Excerpts
    from bge_eval.suites.scored import RetrievalPart


@dataclass(frozen=True, slots=True)
class MistakesFlags:
    """The run, the groups of its queries and the files of training data."""

    run: Annotated[
        str | None,
        typer.Argument(
            help="A model's name, a folder of results, one result or a TREC run. Default: the"
            " only row in results/runs.",
            show_default=False,
        ),
    ] = None
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "-t", help="Only these tasks; repeat. Default: all with runs."),
    ] = None
    metric: Annotated[
        str, typer.Option(help="The measure of the means, as ir_measures writes it.")
    ] = "nDCG@10"
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Group by this field of the queries (topic), or of their relevant documents"
            " (document.source); repeat. Needs the data.",
            metavar="FIELD",
        ),
    ] = None
    queries: Annotated[
        int, typer.Option(min=0, metavar="N", help="Show the N worst queries of every kind.")
    ] = 0
    qrels: Annotated[
        Path | None,
        typer.Option(help="Other judgements, which a TREC run needs: TREC's or BEIR's tsv."),
    ] = None
    data_dir: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of data sets, for whole texts and fields; repeat. Default: where the run"
            " read them.",
        ),
    ] = None
    hard_negatives: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write hard negatives as FlagEmbedding's training jsonl. One task."
        ),
    ] = None
    suspects: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write suspected false negatives in the same format, as neg. One task.",
        ),
    ] = None
    negatives: Annotated[
        int, typer.Option(min=1, help="Most negatives, or suspects, of a query.")
    ] = 15
    margin: Annotated[
        float,
        typer.Option(
            help="An unjudged document is suspected from this share of the best relevant"
            " document's score on, and is a negative below it."
        ),
    ] = 0.95
    no_scores: Annotated[
        bool,
        typer.Option(
            "--no-scores",
            help="Write no scores, and so keep relevant documents that the run does not have.",
        ),
    ] = False
    form: Annotated[Format, typer.Option("--format", help="Format of the tables.")] = (
        Format.TERMINAL
    )

    @property
    def exports(self) -> bool:
        """Whether a file is written."""
        return self.hard_negatives is not None or self.suspects is not None


@grouped
def mistakes(flags: MistakesFlags) -> None:
    """Group the queries on which a run fails, and write training data from them.

    Kinds of mistakes: nothing relevant in the top 100, or a false positive above the first relevant
    document, judged or not. Groups: by words in the query, number of relevant documents, subset
    (language) and --by fields, with 95% intervals.

    Hard negatives score below --margin of the best relevant document (Moreira et al. 2024);
    unjudged documents above it are suspected to be relevant.

    Examples:
      bge-eval mistakes my-bge --tasks SciFact --queries 3

      bge-eval mistakes my-bge --tasks SciFact --data-dir ./datasets --hard-negatives train.jsonl
    """
    prepare(offline=True)
    from bge_eval.cli.chosen import chosen_tasks
    from bge_eval.cli.console import TerminalProgress, stderr, stdout
    from bge_eval.cli.mistaken import MistakesOutput
    from bge_eval.errors import UsageError
    from bge_eval.measures.measure import parse_measure

    if not 0 < flags.margin <= 1:
        raise UsageError(f"--margin is above 0 and at most 1, not {flags.margin:g}.")
    measure = parse_measure(flags.metric)
    chosen = chosen_tasks(flags.run, split_names(flags.tasks), flags.qrels)
    if flags.exports and len(chosen) > 1:
        names = ", ".join(task.task for task in chosen)
        raise UsageError(f"A file of training data is of one task: --tasks names one of {names}.")
    progress = TerminalProgress()
    with progress.step("mistakes", len(chosen), "tasks") as step:
        shown = []
        for task in chosen:
            shown.append(_of_task(task, measure, flags, progress))
            step.advance(1)
    write(MistakesOutput(shown), flags.form, stdout)
    if flags.form is Format.CSV:
        for note in (note for task in shown for note in task.notes):
            stderr.print(note, style="yellow", markup=False, soft_wrap=True)


def _of_task(
    task: ChosenTask, measure: Measure, flags: MistakesFlags, progress: Progress
) -> TaskMistakes:
    """Judge the queries of a task's runs, group them and write the files."""
    from bge_eval.cli.mistaken import TaskMistakes
    from bge_eval.errors import MissingError
    from bge_eval.mistakes.groups import by_length, by_relevant, by_script, grouped_by, kinds
    from bge_eval.mistakes.queries import judged_queries

    queries: list[JudgedQuery] = []
    judged = 0
    texts = {name: source.texts() for name, source in task.sources.items()}
    for name, source in task.sources.items():
        qrels = source.qrels()
        judged += len(qrels)
        queries += judged_queries(name, source.run(), qrels, measure)
    if not queries:
        raise MissingError(f"No query of {task.task} has a relevant document.")
    words = {(name, id): text for name, own in texts.items() for id, text in own.queries.items()}
    groups = [*by_length(queries, words), *by_relevant(queries), *by_script(queries, words)]
    if len(task.sources) > 1:
        groups += grouped_by("subset", queries, [[query.part] for query in queries])
    notes = []
    if judged > len(queries):
        notes.append(f"{judged - len(queries):,} judged queries have no relevant document")
    if flags.by or flags.exports:
        more, written = _with_data(task, queries, flags, progress)
        groups += more
        notes += written
    return TaskMistakes(
        task.label, task.task, str(measure), len(queries), kinds(queries), groups,
        _examples(queries, texts, flags.queries), notes,
    )  # fmt: skip


def _examples(
    queries: Sequence[JudgedQuery], texts: dict[str, Excerpts], count: int
) -> list[Example]:
    """Return the worst queries of every kind of mistake."""
    from bge_eval.cli.mistaken import example
    from bge_eval.mistakes.queries import Kind

    shown = []
    for kind in Kind:
        if kind is Kind.NONE:
            continue
        own = sorted(
            (query for query in queries if query.kind is kind),
            key=lambda query: (query.value, query.part, query.id),
        )
        for query in own[:count]:
            own_texts = texts[query.part]
            shown.append(example(query, own_texts.queries, own_texts.documents))
    return shown


def _with_data(
    task: ChosenTask, queries: Sequence[JudgedQuery], flags: MistakesFlags, progress: Progress
) -> tuple[list[Group], list[str]]:
    """Return the groups by fields, and notes of the files written."""
    from bge_eval.errors import UsageError
    from bge_eval.suites.scored import scored_data

    if not task.results:
        raise UsageError(
            f"{task.label} is a TREC run, whose data are unknown: --by, --hard-negatives and"
            " --suspects need a saved result."
        )
    with ExitStack() as stack:
        parts: dict[str, RetrievalPart] = {}
        for result in task.results:
            data = stack.enter_context(scored_data(result, flags.data_dir or (), progress))
            for name, source in task.sources.items():
                if source.saved and source.saved.result.path == result.path:
                    parts[name] = data[source.saved.key]
        groups = []
        for field in flags.by or ():
            groups += _by_field(task, field, queries, parts)
        return groups, list(_write(task, parts, flags)) if flags.exports else []


def _by_field(
    task: ChosenTask, name: str, queries: Sequence[JudgedQuery], parts: dict[str, RetrievalPart]
) -> list[Group]:
    """Group the queries by a field of theirs, or of their relevant documents."""
    from bge_eval.data.own_fields import FieldValues, document_fields, query_fields
    from bge_eval.errors import UsageError, did_you_mean
    from bge_eval.mistakes.groups import by_values

    of_documents = name.startswith("document.")
    field = name.removeprefix("document.")
    known: dict[str, FieldValues] = {}
    relevant: dict[tuple[str, str], list[str]] = {}
    for part, data in parts.items():
        source = task.sources[part]
        saved = source.saved
        assert saved is not None
        for id, grades in source.qrels().items():
            relevant[part, id] = [document for document, grade in grades.items() if grade > 0]
        ids = {document for (own, _), docs in relevant.items() if own == part for document in docs}
        known[part] = (
            document_fields(data.source, saved.key, data.corpus, ids)
            if of_documents
            else query_fields(data.source, saved.key, data.queries)
        )
    names = sorted({own for fields in known.values() for own in fields})
    if field not in names:
        whose = "relevant documents" if of_documents else "queries"
        raise UsageError(
            f"--by {name}: the {whose} of {task.task} have no field '{field}'."
            f"{did_you_mean(field, names)} Their fields: {', '.join(names) or 'none but the text'}."
            + ("" if of_documents else " A field of documents is named document.FIELD.")
        )
    values = []
    for query in queries:
        own = known[query.part].get(field, {})
        ids_of = relevant[query.part, query.id] if of_documents else [query.id]
        values.append([value for id in ids_of for value in own.get(id, [])])
    return by_values(name, queries, values)


def _write(
    task: ChosenTask, parts: dict[str, RetrievalPart], flags: MistakesFlags
) -> Iterator[str]:
    """Write the files of training data, and yield one note for each."""
    from bge_eval.data.texts import query_texts, whole_texts
    from bge_eval.errors import UsageError
    from bge_eval.mistakes.negatives import Miner, write_training

    if len(parts) > 1:
        raise UsageError(
            f"{task.task} has {len(parts)} runs, and a file of training data is of one: give the"
            " result of one subset."
        )
    [(name, data)] = parts.items()
    source = task.sources[name]
    run, qrels = source.run(), source.qrels()
    miner = Miner(flags.margin, flags.negatives)
    texts = dict(zip(map(str, data.queries["id"]), query_texts(data.queries), strict=True))
    for path, mined, what in (
        (flags.hard_negatives, miner.hard_negatives, "hard negatives"),
        (flags.suspects, miner.suspects, "suspected false negatives"),
    ):
        if path is None:
            continue
        chosen = mined(run, qrels)
        ids = {id for one in chosen for id in (*one.positives, *one.others)}
        documents = whole_texts(data.corpus, ids)
        written = write_training(path, chosen, texts, documents, scores=not flags.no_scores)
        left = (
            f" {written.unscored:,} queries are left out: the run has none of their relevant"
            " documents, so there is no score (--no-scores keeps them)."
            if written.unscored
            else ""
        )
        yield (
            f"{path}: {written.documents:,} {what} of {written.lines:,} queries.{left} They are"
            " queries of the evaluated split: a model trained on them cannot be scored on it."
        )
