"""A user's own data set as an mteb task.

A folder in the BEIR or FlagEmbedding layout, or a dataset repository with a corpus, is a
retrieval task. A folder of ``<split>.jsonl`` files is an STS or a reranking task, by its
columns. ``task.toml`` in the folder holds the options::

    name = "Tickets"               # default: the folder's name
    split = "test"                 # default: test, or the only split
    languages = ["deu-Latn"]       # mteb's codes; default: eng-Latn
    main_measure = "RR@10"         # or mteb's key; default: by task type
    drop_identical_ids = true      # leave out the query's own document; default: false
    query_prompt = "query: "       # put before every query of this task
    document_prompt = "passage: "  # put before every document of it
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.data.answers import answer_task
from bge_eval.data.layouts import recognise_collection
from bge_eval.errors import DamagedError, MissingError, UsageError, did_you_mean, one_line, quoted
from bge_eval.measures.mteb_keys import measure_of_key, parse_key

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

_STS_KEYS = [
    f"{similarity}_{correlation}"
    for similarity in ("cosine", "manhattan", "euclidean")
    for correlation in ("spearman", "pearson")
]
UNSTATED: dict[str, Any] = dict.fromkeys(
    (
        *("date", "domains", "task_subtypes", "license", "annotations_creators", "dialect"),
        *("sample_creation", "bibtex_citation"),
    )
)
"""What mteb asks of every task, and what nobody states of a collection that is not mteb's."""
_MAIN = {"Retrieval": "ndcg_at_10", "Reranking": "map_at_1000", "STS": "cosine_spearman"}
_TAKEN = ("model_meta", "run")
"""Names of other files in a folder of results."""
_OPTIONS = {
    "name": str,
    "split": str,
    "languages": list,
    "main_measure": str,
    "drop_identical_ids": bool,
    "query_prompt": str,
    "document_prompt": str,
    "description": str,
}


@dataclass(frozen=True, slots=True)
class Collection:
    """A data set that mteb has no task for."""

    name: str
    """The task's name, under which results are stored."""
    folder: Path
    """Its folder."""
    description: str
    """One sentence that describes it."""
    languages: Sequence[str]
    """mteb's language codes, e.g. ("eng-Latn", "zho-Hans")."""
    split: str = "test"
    """The split to score."""
    shipped: bool = True
    """Whether ``folder`` exists; else data folders are searched for its name."""
    type: str = "Retrieval"
    """mteb's task type: Retrieval, Reranking or STS."""
    main_measure: str | None = None
    """mteb's key of the main score; None for the default of its type."""
    drop_identical_ids: bool = False
    """Whether to leave out the document that has the query's own id."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Prompts of this task by role ("query", "document")."""
    repositories: tuple[str, ...] = ()
    """Public dataset repositories whose files together make up the folder."""
    subsets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Subset → mteb's language codes, where the collection has subsets."""
    answers: bool = False
    """Whether passages are judged by answer strings; see `bge_eval.data.answers`."""


def read_collection(folder: Path) -> Collection:
    """Read a user's folder as a collection.

    Raises:
        MissingError: the folder is in no known layout, or lacks the split.
        DamagedError: its task.toml is invalid.
    """
    options = _options(folder / "task.toml")
    kind, splits = recognise_collection(folder)
    split = options.get("split") or ("test" if "test" in splits else splits[0])
    if split not in splits or (not options.get("split") and "test" not in splits and splits[1:]):
        raise MissingError(
            f"{folder} has the splits {', '.join(splits)}, and no '{split}' to score: name one"
            ' in its task.toml (split = "…").'
        )
    prompts = {
        role: options[f"{role}_prompt"]
        for role in ("query", "document")
        if f"{role}_prompt" in options
    }
    measure = options.get("main_measure")
    own_name = re.sub(r"[^\w.-]", "_", folder.resolve().name).lstrip(".-")
    name = options.get("name") or own_name[:100] or "own"
    return Collection(
        name=name,
        folder=folder,
        description=options.get("description", f"The user's own collection {name}."),
        languages=tuple(options.get("languages", ("eng-Latn",))),
        split=split,
        type=kind,
        main_measure=_main_key(folder, kind, measure) if measure else None,
        drop_identical_ids=options.get("drop_identical_ids", False),
        prompts=prompts,
    )


def collection_task(collection: Collection) -> AbsTask:
    """Return a fresh mteb task for a collection; its data are attached when it runs.

    Raises:
        DamagedError: mteb rejects the options, e.g. an unknown language code.
    """
    from mteb.abstasks import AbsTask
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    try:
        metadata = TaskMetadata(
            name=collection.name,
            description=collection.description,
            reference=None,
            dataset={
                "path": next(iter(collection.repositories), f"local/{collection.name}"),
                "revision": "main" if collection.repositories else "local",
            },
            type=collection.type,  # type: ignore[arg-type]
            category="t2t",
            modalities=["text"],
            eval_splits=[collection.split],
            eval_langs=(
                {name: list(codes) for name, codes in collection.subsets.items()}
                or list(collection.languages)
            ),
            main_score=collection.main_measure or _MAIN[collection.type],
            **UNSTATED,
        )
    except ValueError as error:
        reason = one_line(error)
        raise DamagedError(f"{collection.folder}: mteb rejects its options ({reason}).") from error
    body: dict[str, Any] = {"metadata": metadata}
    base: type[AbsTask] = AbsTaskSTS
    if collection.type != "STS":
        base = answer_task() if collection.answers else AbsTaskRetrieval
        body["ignore_identical_ids"] = collection.drop_identical_ids
    task = type(collection.name, (base,), body)()
    assert isinstance(task, AbsTask)
    return task


def _main_key(folder: Path, kind: str, name: str) -> str:
    """Return mteb's key of a main measure, given as a measure's name or as mteb's key."""
    key = measure_of_key(name)
    if kind == "STS":
        if name in _STS_KEYS:
            return name
        expected = f"the measures of an STS task are {', '.join(_STS_KEYS)}"
    else:
        try:
            return parse_key(str(key or name))
        except UsageError as error:
            expected = str(error)
    raise DamagedError(f"{folder / 'task.toml'}: main_measure is '{name}': {expected}")


def _options(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        options = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedError(f"{path} is not TOML ({error}).") from error
    for name, value in options.items():
        kind = _OPTIONS.get(name)
        if kind is None:
            raise DamagedError(
                f"{path}: there is no option '{name}'.{did_you_mean(name, _OPTIONS)} Options:"
                f" {', '.join(_OPTIONS)}."
            )
        if not isinstance(value, kind):
            raise DamagedError(f"{path}: {name} must be a {kind.__name__}, not {value!r}.")
    name = options.get("name", "a")
    if not re.fullmatch(r"\w[\w.-]{0,99}", name) or name in _TAKEN:
        raise DamagedError(
            f"{path}: the name {quoted(name)} becomes a file name: at most 100 letters, digits,"
            f" '.', '_' and '-' are allowed, the first a letter or digit, and not"
            f" {' or '.join(_TAKEN)}."
        )
    if options.get("languages") == []:
        raise DamagedError(f"{path}: languages is empty. Leave it out, or name one: eng-Latn.")
    for language in options.get("languages", ()):
        if not isinstance(language, str) or not re.fullmatch(r"[a-z]{3}-[A-Z][a-z]{3}", language):
            raise DamagedError(
                f"{path}: '{language}' is no language as mteb writes it, such as eng-Latn or"
                " zho-Hans."
            )
    return options
