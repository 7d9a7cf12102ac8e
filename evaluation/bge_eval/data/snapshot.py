"""A copy of a dataset repository: as ``hf download --local-dir`` leaves it, or in the hub's cache.

Each configuration is read with the reader of its own files, so a repository may mix jsonl, parquet
and tsv.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bge_eval.data.files import read_through, records
from bge_eval.data.repository_files import READERS, absent_parts, configured_files, file_suffix
from bge_eval.errors import DamagedError, MissingError, one_line
from bge_eval.results import unpacked

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A folder with the files of a dataset repository."""

    folder: Path
    """The repository's root."""
    configs: Mapping[str, Mapping[str, list[Path]]]
    """Configuration → split → files."""

    @staticmethod
    def recognise(folder: Path) -> Snapshot | None:
        """Return the snapshot if the folder has data files of a known format, else None."""
        configs = configured_files(folder)
        return Snapshot(folder, configs) if configs else None

    def split(self, config: str, name: str) -> str:
        """Return the split to read, by mteb's rule: the one asked for, or else the only one.

        Raises:
            MissingError: there are several others; the message lists them.
        """
        splits = self.configs[config]
        if name in splits:
            return name
        if len(splits) == 1:
            return next(iter(splits))
        raise MissingError(
            f"{self.folder}, configuration '{config}': no split '{name}'. Splits there:"
            f" {', '.join(splits)}."
        )

    def files(self, config: str, split: str) -> list[Path]:
        """Return the files of one split of one configuration.

        Raises:
            MissingError: the configuration, the split or one of its files is absent.
        """
        self.require(config)
        files = self.configs[config].get(split)
        if not files:
            raise MissingError(
                f"{self.folder}, configuration '{config}': no split '{split}'. Splits there:"
                f" {', '.join(self.configs[config])}."
            )
        if absent := absent_parts(files):
            raise MissingError(
                f"{self.folder}, configuration '{config}', split '{split}': {absent[0]} is"
                f" absent ({len(absent)} of its files are missing). Download the rest of them."
            )
        return files

    def require(self, config: str) -> None:
        """Raise MissingError, with a list of the configurations, if one is absent."""
        if config not in self.configs:
            raise MissingError(
                f"{self.folder} has no configuration '{config}'. There are:"
                f" {', '.join(self.configs)}."
            )

    def load(self, config: str, split: str, scratch: Path) -> Dataset:
        """Read one split of one configuration.

        Args:
            config: the configuration.
            split: the split's exact name.
            scratch: folder for the converted tables; it must outlive the result.

        Raises:
            MissingError: the configuration, the split or one of its files is absent.
            DamagedError: a file cannot be read.
        """
        import datasets

        files = self.files(config, split)
        for path in files:
            _refuse_bomb(path)
        options = {"sep": "\t"} if ".tsv" in files[0].name else {}
        try:
            return datasets.load_dataset(
                READERS[file_suffix(files[0])],
                data_files={"rows": [str(path) for path in files]},
                split="rows",
                cache_dir=str(scratch),
                **options,
            )
        except Exception as error:
            # datasets wraps the errors of its readers in various types.
            reason = one_line(error.__cause__ or error)
            raise DamagedError(
                f"{files[0]} (configuration '{config}', split '{split}') cannot be read: {reason}"
            ) from error

    def columns(self, config: str, split: str) -> list[str]:
        """Return the columns of a split from its first file; [] of other formats."""
        files = self.configs.get(config, {}).get(split, [])
        return _columns(files[0]) if files else []

    def fingerprint(self) -> str:
        """Return a hash of the names and content of all data files: 16 hexadecimal digits."""
        digest = hashlib.sha256()
        paths = {
            path for splits in self.configs.values() for files in splits.values() for path in files
        }
        for path in sorted(paths):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(self.folder).as_posix()}\0{content}\n".encode())
        return digest.hexdigest()[:16]


def _refuse_bomb(path: Path) -> None:
    """Refuse a file that would fill memory or disk, before datasets reads it.

    Raises:
        DamagedError: it holds far more than its size, or a line without an end.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    suffix = file_suffix(path)
    if suffix in (".jsonl", ".csv", ".tsv"):
        read_through(path)
        return
    if path.suffix in (".gz", ".zst"):
        read_through(path, of_lines=suffix != ".json")
        return
    if suffix != ".parquet":
        return
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return  # the reader says what is wrong
    size = path.stat().st_size
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    whole = sum(group.total_byte_size for group in groups)
    # Ids differ from row to row, so a data set takes more than a byte for each.
    if whole > max(unpacked.ALWAYS, size * unpacked.MOST_TIMES) or metadata.num_rows > max(
        2**20, size
    ):
        raise DamagedError(
            f"{path} has {size:,} bytes and says that it holds {metadata.num_rows:,} rows in"
            f" {whole:,} bytes: such a file is made to fill memory or disk, and is not read."
        )


def _columns(path: Path) -> list[str]:
    """Return the columns of a parquet or jsonl file, from its head; [] for other formats."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if file_suffix(path) == ".parquet":
            return list(pq.read_schema(path).names)
        if file_suffix(path) == ".jsonl":
            first = next(records(path), None)
            return list(first[1]) if first else []
    except (OSError, pa.ArrowException) as error:
        reason = one_line(error, 200)
        raise DamagedError(f"{path} cannot be read ({reason}); download it again.") from error
    return []
