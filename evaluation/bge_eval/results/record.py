"""``run.json``, the record of how a saved result was made, with typed fields.

Names and order of the keys are a format: this version reads files of earlier versions, and later
versions must read files of this one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError, NewerError, one_line, quoted
from bge_eval.progress import Profile, WorkDone
from bge_eval.records import SplitKey
from bge_eval.results.fields import Fields
from bge_eval.results.identity import Identity

RUN_FORMAT = 1
"""Version of the format of run.json."""
_OWN_CHECKSUM = "checksum"
"""The key of the checksum of run.json's other content."""


@dataclass(frozen=True, slots=True)
class SideFiles:
    """Names of the files of one run, beside its result; "" if there is no such file."""

    subset: str
    """mteb's subset, "default" where a task has none."""
    split: str
    """The split, e.g. "test"."""
    run: str = ""
    """The TREC run that was scored."""
    queries: str = ""
    """The values of every query."""
    qrels: str = ""
    """The qrels that it was scored with."""
    texts: str = ""
    """Excerpts of the queries and documents."""

    @property
    def key(self) -> SplitKey:
        """Return (subset, split)."""
        return (self.subset, self.split)


@dataclass(frozen=True, slots=True)
class ItemFile:
    """The items of one split and subset of a task that searches nothing."""

    subset: str
    """mteb's subset, "default" where a task has none."""
    split: str
    """The split, e.g. "test"."""
    kind: str = ""
    """The items: "pairs" or "texts"."""
    name: str = ""
    """The file's name, beside the result."""

    @property
    def key(self) -> SplitKey:
        """Return (subset, split)."""
        return (self.subset, self.split)


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine and the installed packages."""

    python: str = ""
    """Version of Python."""
    system: str = ""
    """Operating system, its version and the architecture."""
    processor: str = ""
    """The processor's name."""
    cores: int | None = None
    """Number of logical cores; None if unknown."""
    gpus: tuple[str, ...] = ()
    """The GPUs' names."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Package → version."""

    @property
    def machine(self) -> str:
        """Return the GPUs, or the processor and its cores, in words."""
        return ", ".join(self.gpus) or f"{self.processor}, {self.cores} cores"


@dataclass(frozen=True, slots=True)
class Memory:
    """The most memory that the process used, in bytes."""

    peak_bytes: int | None = None
    """Resident memory; None if unknown."""
    gpu_peak_bytes: int | None = None
    """Memory that torch allocated on the fullest GPU; None without one."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The content of one run.json; a result of mteb's own has an empty record."""

    identity: Identity | None = None
    """Everything that the scores depend on; None if it is not recorded."""
    identity_digest: str = ""
    """The identity's digest."""
    task_type: str = ""
    """mteb's task type, e.g. "Retrieval"."""
    main_measure: str = ""
    """mteb's key of the task's main score, e.g. "ndcg_at_10"."""
    aggregate_of: tuple[str, ...] = ()
    """The tasks whose scores an aggregate averages; () for a task that is scored itself."""
    data_origin: str = ""
    """Folder or repository of the data, for people."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that change the time and not the score, as the kind of model names them."""
    created: str = ""
    """When the result was made: ISO 8601, UTC."""
    environment: Environment = field(default_factory=Environment)
    """The machine and the installed packages."""
    memory: Memory = field(default_factory=Memory)
    """The most memory that the process used."""
    profile: Profile | None = None
    """Seconds, items and tokens of every phase; None for an aggregate."""
    files: tuple[SideFiles, ...] = ()
    """The saved runs; () for a task that searches nothing."""
    items: tuple[ItemFile, ...] = ()
    """The saved pairs or texts of a task that searches nothing; () for other tasks."""
    checksums: Mapping[str, str] = field(default_factory=dict)
    """Name of a file of the result → its SHA-256; {} for results of 0.1.0."""

    @property
    def device(self) -> str:
        """Return the device that the model ran on, or ""."""
        return str(self.settings.get("device") or "")

    @property
    def parameters(self) -> int | None:
        """Return the number of the model's weights, or None."""
        return self.settings.get("parameters")

    @property
    def dimension(self) -> int | None:
        """Return the length of the model's vectors, or None."""
        return self.settings.get("dimension")

    def as_json(self) -> dict[str, Any]:
        """Return the content of run.json, in the order of its keys."""
        memory = {name: peak for name, peak in asdict(self.memory).items() if peak is not None}
        return {
            "format": RUN_FORMAT,
            "identity_digest": self.identity_digest,
            "identity": self.identity.as_dict() if self.identity else {},
            "task_type": self.task_type,
            "main_measure": self.main_measure,
            "aggregate_of": list(self.aggregate_of),
            "data_origin": self.data_origin,
            "settings": dict(self.settings),
            "created": self.created,
            "environment": asdict(self.environment),
            "memory": memory,
            **(_profile_json(self.profile) if self.profile else {}),
            "files": [asdict(files) for files in self.files],
            **({"items": [asdict(each) for each in self.items]} if self.items else {}),
            **({"checksums": dict(self.checksums)} if self.checksums else {}),
        }


def record_path(result: Path) -> Path:
    """Return where the run.json of a result lies."""
    return result.parent / result.stem / "run.json"


def read_record(result: Path) -> RunRecord:
    """Read the run.json of a result; without one the record is empty.

    Raises:
        DamagedError: the file is not readable, has another format, or a field has a wrong type.
    """
    path = record_path(result)
    if not path.is_file():
        return RunRecord()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is not readable JSON ({one_line(error)}).") from error
    fields = Fields(path, content)
    form = fields.whole("format", RUN_FORMAT)  # first: the checksum may be another one there
    if form != RUN_FORMAT:
        kind = NewerError if form is not None and form > RUN_FORMAT else DamagedError
        raise kind(
            f"{fields.path}: format is {form}, and this bge-eval reads {RUN_FORMAT}. Update"
            " bge-eval, or run the task again with --overwrite."
        )
    own = fields.text(_OWN_CHECKSUM)
    if own and own != _digest(fields.values):
        raise DamagedError(f"{path} is damaged: its checksum does not match its content.")
    return _record(fields)


def find_record(result: Path, note: Callable[[str], None] = lambda text: None) -> RunRecord | None:
    """Return the record of a complete result, or None if there is none or it is damaged.

    Args:
        result: mteb's JSON.
        note: receives a message that names a damaged file.

    Raises:
        NewerError: it has the format of a later version.
    """
    if not result.is_file():
        return None
    try:
        record = read_record(result)
        for name in record.checksums:
            refuse_damaged(result, name, record)
    except NewerError:
        raise
    except DamagedError as error:
        note(str(error))
        return None
    texts = {files.texts for files in record.files}
    for name in record.checksums:  # texts may be deleted by the owner of a confidential collection
        if name not in texts and not (result.parent / name).is_file():
            note(f"{result.parent / name} is missing, so the result beside it is made again.")
            return None
    return record if record.identity else None


def write_record(folder: Path, record: RunRecord) -> None:
    """Write a run.json into a folder."""
    content = record.as_json()
    if record.checksums:  # an earlier version's record, which has none, is written as it was
        content[_OWN_CHECKSUM] = _digest(content)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / "run.json").write_text(text + "\n", encoding="utf-8")


def refuse_damaged(result: Path, name: str, record: RunRecord) -> None:
    """Refuse a file of a result that is not as it was written.

    Args:
        result: mteb's JSON.
        name: the name of the file beside it, or its own.
        record: the result's run.json.

    Raises:
        DamagedError: the checksum does not match. Files without a checksum are accepted.
    """
    expected = record.checksums.get(name)
    path = result.parent / name
    if expected is not None and path.is_file() and file_checksum(path) != expected:
        raise DamagedError(
            f"{path} is damaged: its checksum is not the one in {record_path(result)}. Run the"
            " task again: the damaged result is set aside and made again."
        )


def file_checksum(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in content.items() if name != _OWN_CHECKSUM}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _record(fields: Fields) -> RunRecord:
    return RunRecord(
        identity=_identity(fields.inner("identity")),
        identity_digest=fields.text("identity_digest"),
        task_type=fields.text("task_type"),
        main_measure=fields.text("main_measure"),
        aggregate_of=fields.texts("aggregate_of"),
        data_origin=fields.text("data_origin"),
        settings=fields.mapping("settings"),
        created=fields.text("created"),
        environment=_environment(fields.inner("environment")),
        memory=Memory(**{n: fields.inner("memory").whole(n) for n in Memory.__slots__}),
        profile=_profile(fields),
        files=tuple(_side_files(each) for each in fields.inner_list("files")),
        items=tuple(
            ItemFile(**{name: each.text(name) for name in ItemFile.__slots__})
            for each in fields.inner_list("items")
        ),
        checksums=fields.versions("checksums"),
    )


def _identity(fields: Fields) -> Identity | None:
    if not fields.values:
        return None
    return Identity(
        task=fields.text("task"),
        task_revision=fields.text("task_revision"),
        model=fields.mapping("model"),
        data=fields.mapping("data"),
        search=fields.mapping("search"),
        reranker=fields.mapping("reranker") or None,
        packages=fields.versions("packages"),
    )


def _environment(fields: Fields) -> Environment:
    return Environment(
        python=fields.text("python"),
        system=fields.text("system"),
        processor=fields.text("processor"),
        cores=fields.whole("cores"),
        gpus=fields.texts("gpus"),
        packages=fields.versions("packages"),
    )


def _profile_json(profile: Profile) -> dict[str, Any]:
    content = asdict(profile)
    workers = list(content.pop("workers").values())
    return {**content, **({"workers": workers} if workers else {})}


def _profile(fields: Fields) -> Profile | None:
    if not any(name in fields.values for name in Profile.__slots__):
        return None
    profile = Profile(
        seconds=fields.numbers("seconds"),
        counts=fields.counts("counts"),
        tokens=fields.counts("tokens"),
    )
    for each in fields.inner_list("workers"):
        profile.worked(
            WorkDone(
                each.text("worker"),
                each.text("machine"),
                shards=each.whole("shards") or 0,
                items=each.whole("items") or 0,
                seconds=each.number("seconds"),
                retries=each.whole("retries") or 0,
            )
        )
    return profile


def _side_files(fields: Fields) -> SideFiles:
    names = {name: fields.text(name) for name in SideFiles.__slots__}
    for name in names.values():
        _refuse_place(fields.path, name)
    return SideFiles(**names)


def _refuse_place(record: Path, name: str) -> None:
    """Refuse the name of a file that is not beside the result.

    Raises:
        DamagedError: the name has a separator or leads elsewhere.
    """
    if name and (name in (".", "..") or "/" in name or "\\" in name or "\0" in name):
        raise DamagedError(
            f"{record} names the file {quoted(name)}, which is not beside its result."
        )
