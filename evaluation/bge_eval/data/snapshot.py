"""A copy of a dataset repository: as ``hf download --local-dir`` leaves it, or in the hub's cache.

Which files belong to which configuration and split is read from the ``configs`` of the README's
YAML; where it has none, datasets' own conventions decide. Each configuration is read with the
reader of its own files, so a repository may mix jsonl, parquet and tsv.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.data.candidates import split_of_candidates
from bge_eval.data.files import records
from bge_eval.data.integrity import check_split
from bge_eval.errors import DamagedError, MissingError, one_line

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks import AbsTask

    from bge_eval.progress import Progress

_READERS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".arrow": "arrow",
}

_PART = re.compile(r"(?P<head>.*)-(?P<part>\d{5})-of-(?P<count>\d{5})(?P<tail>.*)")

Files = dict[str, dict[str, list[Path]]]
"""Configuration → split → files, e.g. ``{"corpus": {"corpus": [Path("corpus.jsonl")]}}``."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A folder that holds a dataset repository's files."""

    folder: Path
    """The repository's root."""
    configs: Mapping[str, Mapping[str, list[Path]]]
    """Configuration → split → files."""

    @staticmethod
    def recognise(folder: Path) -> Snapshot | None:
        """Return the snapshot if any data file in it can be read, else None."""
        configs = _from_readme(folder) or _by_convention(folder)
        return Snapshot(folder, configs) if configs else None

    def split(self, config: str, wanted: str) -> str:
        """Return the split to read, as mteb chooses: the wanted one, or the only one.

        Raises:
            MissingError: neither; lists those there.
        """
        splits = self.configs[config]
        if wanted in splits:
            return wanted
        if len(splits) == 1:
            return next(iter(splits))
        raise MissingError(
            f"{self.folder}, configuration '{config}': no split '{wanted}'. Splits there:"
            f" {', '.join(splits)}."
        )

    def files(self, config: str, split: str) -> list[Path]:
        """Return the files of one split of one configuration.

        Raises:
            MissingError: there is no such configuration or split; lists those there.
        """
        _need(self, config)
        files = self.configs[config].get(split)
        if not files:
            raise MissingError(
                f"{self.folder}, configuration '{config}': no split '{split}'. Splits there:"
                f" {', '.join(self.configs[config])}."
            )
        if absent := _absent_parts(files):
            raise MissingError(
                f"{self.folder}, configuration '{config}', split '{split}': {absent[0]} is not"
                f" there ({len(absent)} of its files are missing). Get the rest of them."
            )
        return files

    def load(self, config: str, split: str, scratch: Path) -> Dataset:
        """Read one split of one configuration.

        Args:
            config: the configuration.
            split: the split, exactly.
            scratch: where the converted tables go; must outlive the result.

        Raises:
            MissingError: there is no such configuration or split.
            DamagedError: a file cannot be read.
        """
        import datasets

        files = self.files(config, split)
        options = {"sep": "\t"} if ".tsv" in files[0].name else {}
        try:
            return datasets.load_dataset(
                _READERS[_suffix(files[0])],
                data_files={"rows": [str(path) for path in files]},
                split="rows",
                cache_dir=str(scratch),
                **options,
            )
        except Exception as error:
            # datasets wraps every reader's own errors in types of its own.
            reason = one_line(error.__cause__ or error)
            raise DamagedError(
                f"{files[0]} (configuration '{config}', split '{split}') cannot be read: {reason}"
            ) from error

    def columns(self, config: str, split: str) -> list[str]:
        """Return the columns of a split; none if the head of its first file does not tell."""
        files = self.configs.get(config, {}).get(split, [])
        return _columns(files[0]) if files else []

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits made from every data file's name and content."""
        digest = hashlib.sha256()
        paths = {
            path for splits in self.configs.values() for files in splits.values() for path in files
        }
        for path in sorted(paths):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(self.folder).as_posix()}\0{content}\n".encode())
        return digest.hexdigest()[:16]


def check_snapshot(snapshot: Snapshot, task: AbsTask, *, retrieval: bool) -> None:
    """See that a snapshot has every configuration and split that a task needs.

    Raises:
        MissingError: one is not there; lists those that are.
    """
    subsets = list(task.hf_subsets) if task.metadata.is_multilingual else ["default"]
    for subset in subsets:
        if not retrieval:
            config = _rows_config(snapshot, task) if subset == "default" else subset
            _need(snapshot, config)
            for split in task.eval_splits:
                snapshot.files(config, split)
            continue
        if (rows := candidates_config(snapshot, task, subset)) is not None:
            for split in task.eval_splits:
                snapshot.files(rows, split)
            continue
        prefix = "" if subset == "default" else f"{subset}-"
        needed = [f"{prefix}corpus", f"{prefix}queries"]
        if task.metadata.type == "Reranking":
            needed.append(f"{prefix}top_ranked")
        for config in needed:
            _need(snapshot, config)
        judged = "default" if "default" in snapshot.configs else "qrels"
        qrels = f"{prefix}qrels" if prefix else judged
        _need(snapshot, qrels)
        for split in task.eval_splits:
            snapshot.split(qrels, split)


def load_retrieval(
    snapshot: Snapshot, task: AbsTask, scratch: Path, progress: Progress, *, dangling: bool = False
) -> dict[str, Any]:
    """Read a retrieval or reranking task's data from a snapshot through mteb's own loader.

    Judgements of documents that the corpus lacks are accepted if so asked, or if the corpus has
    as many documents as mteb counted: then the set is published like that.

    Raises:
        DamagedError: ids stand twice, or judgements and candidates do not fit the rest.
        MissingError: a configuration, split or subset is not there; a reranking task without
            candidate lists is refused, since it would silently become retrieval.
    """
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalDatasetLoader

    class Loader(RetrievalDatasetLoader):
        """mteb's loader, reading files instead of asking datasets for a repository."""

        def __init__(self, split: str, config: str) -> None:
            self.hf_repo, self.revision, self.trust_remote_code = str(snapshot.folder), "", False
            self.split = split
            self.config = config if config != "default" else None
            self.dataset_configs = list(snapshot.configs)

        def _get_split(self, config: str) -> str:
            _need(snapshot, config)
            return snapshot.split(config, self.split)

        def _load_dataset_split(self, config: str, num_proc: int | None) -> Dataset:
            return snapshot.load(config, self._get_split(config), scratch)

    data: dict[str, Any] = {}
    for subset in task.hf_subsets if task.metadata.is_multilingual else ["default"]:
        if (rows := candidates_config(snapshot, task, subset)) is not None:
            data[subset] = {
                split: _load_candidates(snapshot, rows, split, scratch)
                for split in task.eval_splits
            }
            continue
        if subset == "default" and not {"default", "qrels"} & set(snapshot.configs):
            _need(snapshot, "default")
        data[subset] = {split: Loader(split, subset).load() for split in task.eval_splits}
        for split, loaded in data[subset].items():
            loaded["corpus"] = _without_none(loaded["corpus"])
            where = f"subset '{subset}', split '{split}'" if subset != "default" else f"'{split}'"
            published = _has_all_documents(task, subset, split, len(loaded["corpus"]))
            origin = f"{snapshot.folder}, {where}"
            if lost := check_split(loaded, origin, dangling=dangling or published):
                progress.note(
                    f"{origin}: {lost} judged documents are not in the corpus and count as never"
                    " found."
                )
            if task.metadata.type == "Reranking" and loaded["top_ranked"] is None:
                raise MissingError(
                    f"{snapshot.folder} has no configuration 'top_ranked' for {task.metadata.name}"
                    f" ({split}): a reranking task without its candidate lists would be retrieval"
                    f" over the whole corpus. There are: {', '.join(snapshot.configs)}."
                )
    return data


def _has_all_documents(task: AbsTask, subset: str, split: str, number: int) -> bool:
    statistics: Any = (task.metadata.descriptive_stats or {}).get(split, {})
    of_subset = statistics.get("hf_subset_descriptive_stats", {}).get(subset, statistics)
    return bool(of_subset.get("num_documents") == number)


def candidates_config(snapshot: Snapshot, task: AbsTask, subset: str) -> str | None:
    """Return the configuration that holds a subset's reranking rows, if it is in that form."""
    if task.metadata.type != "Reranking":
        return None
    names = [subset] if subset != "default" else list(snapshot.configs)
    return next(
        (
            config
            for config in names
            for split in snapshot.configs.get(config, {})
            if {"query", "positive", "negative"} <= set(snapshot.columns(config, split))
        ),
        None,
    )


def _load_candidates(snapshot: Snapshot, config: str, split: str, scratch: Path) -> dict[str, Any]:
    table = snapshot.load(config, split, scratch)
    origin = f"{snapshot.folder}, configuration '{config}', split '{split}'"
    rows = ((f"{origin}, row {number}", dict(row)) for number, row in enumerate(table, start=1))
    return split_of_candidates(rows, split, origin)


def load_rows(
    snapshot: Snapshot, task: AbsTask, splits: tuple[str, ...], scratch: Path
) -> dict[str, Any]:
    """Read any other task's data from a snapshot: subset → split → table, or split → table."""
    from datasets import DatasetDict

    def of(config: str) -> Any:
        _need(snapshot, config)
        for split in task.eval_splits:
            snapshot.files(config, split)  # says what is missing
        present = [split for split in splits if split in snapshot.configs[config]]
        return DatasetDict({split: snapshot.load(config, split, scratch) for split in present})

    if task.metadata.is_multilingual:
        return {subset: of(subset) for subset in task.hf_subsets}
    whole: dict[str, Any] = of(_rows_config(snapshot, task))
    return whole


def _rows_config(snapshot: Snapshot, task: AbsTask) -> str:
    named = task.metadata.dataset.get("name")
    if named in snapshot.configs:
        return str(named)
    return "default" if "default" in snapshot.configs else next(iter(snapshot.configs))


def _absent_parts(files: list[Path]) -> list[str]:
    """Return the names of missing files of a split that says of itself how many it has."""
    there = {path.name for path in files}
    absent = []
    for name in sorted(there):
        match = _PART.fullmatch(name)
        if match is None or match["tail"].startswith("-"):  # a hash, which differs by file
            numbers = {m["part"] for n in there if (m := _PART.fullmatch(n))}
            if match is None or len(numbers) >= int(match["count"]):
                continue
            return [f"one of the {int(match['count'])} files {match['head']}-…-of-{match['count']}"]
        for part in range(int(match["count"])):
            other = f"{match['head']}-{part:05d}-of-{match['count']}{match['tail']}"
            if other not in there and other not in absent:
                absent.append(other)
    return absent


def _need(snapshot: Snapshot, config: str) -> None:
    if config not in snapshot.configs:
        raise MissingError(
            f"{snapshot.folder} has no configuration '{config}'. There are:"
            f" {', '.join(snapshot.configs)}."
        )


def _without_none(corpus: Dataset) -> Dataset:
    """Put an empty title where there is none: mteb joins title and text, and stops at None."""
    if "title" not in corpus.column_names:
        return corpus
    column = corpus.data.column("title")
    if not column.null_count:
        return corpus
    titles = column.fill_null("").to_pylist()
    return corpus.remove_columns(["title"]).add_column("title", titles)


def _from_readme(folder: Path) -> Files:
    from huggingface_hub import RepoCard

    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    try:
        card = RepoCard.load(readme, ignore_metadata_errors=True).data.to_dict()
    except Exception as error:
        raise DamagedError(f"{readme}: its YAML head cannot be read ({error}).") from error
    found: Files = {}
    for config in card.get("configs") or []:
        splits = _splits_of(folder, config.get("data_files"))
        if not splits:
            below = folder / str(config.get("data_dir") or config["config_name"])
            splits = _convention_splits(below) if below.is_dir() else {}
        if splits:
            found[str(config["config_name"])] = splits
    return found


def _splits_of(folder: Path, data_files: Any) -> dict[str, list[Path]]:
    if not data_files:
        return {}
    if isinstance(data_files, str):
        data_files = [{"split": "train", "path": data_files}]
    if isinstance(data_files, list) and all(isinstance(item, str) for item in data_files):
        data_files = [{"split": "train", "path": data_files}]
    splits: dict[str, list[Path]] = {}
    for item in data_files:
        patterns = [item["path"]] if isinstance(item["path"], str) else item["path"]
        files = [path for pattern in patterns for path in _matching(folder, pattern)]
        if files:
            splits[str(item["split"])] = files
    return splits


def _matching(folder: Path, pattern: str) -> list[Path]:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    plain = pattern.removeprefix("./")
    return [
        folder / name
        for name in sorted(names)
        if fnmatch.fnmatchcase(name, plain) and _suffix(Path(name)) in _READERS
    ]


def _by_convention(folder: Path) -> Files:
    """Split files by datasets' conventions: one configuration, or one for each data folder."""
    found: Files = {}
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        if not below.name.startswith("."):
            splits = _convention_splits(below)
            if splits:
                found[below.name] = splits
    own = _convention_splits(folder, deep=False)
    if "data" in found and len(found) == 1:
        return {"default": found["data"]}
    if own:
        names = {path.name.split(".")[0] for files in own.values() for path in files}
        if {"corpus", "queries"} <= names:
            return {}  # the BEIR layout's reader knows these
        found.setdefault("default", own)
    return found


def _convention_splits(folder: Path, *, deep: bool = True) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*") if deep else folder.iterdir()):
        if not path.is_file() or _suffix(path) not in _READERS:
            continue
        name = path.name.split(".")[0]
        name = re.sub(r"-\d{5}-of-\d{5}.*$", "", name)
        aliases = {"dev": "dev", "val": "validation", "valid": "validation"}
        splits.setdefault(aliases.get(name, name), []).append(path)
    return splits


def _columns(path: Path) -> list[str]:
    """Return the columns of a data file from its head; none if that does not tell them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if _suffix(path) == ".parquet":
            return list(pq.read_schema(path).names)
        if _suffix(path) == ".jsonl":
            first = next(records(path), None)
            return list(first[1]) if first else []
    except (OSError, pa.ArrowException) as error:
        reason = one_line(error, 200)
        raise DamagedError(f"{path} cannot be read ({reason}); get it again.") from error
    return []


def _suffix(path: Path) -> str:
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    return Path(name).suffix
