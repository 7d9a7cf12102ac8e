"""Which files of a dataset repository belong to which configuration and split.

The ``configs`` in the YAML head of its README decide; without them, the conventions of datasets.
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError

READERS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".arrow": "arrow",
}
"""File suffix → the name of datasets' reader."""

_PART = re.compile(r"(?P<head>.*)-(?P<part>\d{5})-of-(?P<count>\d{5})(?P<tail>.*)")
_SPLIT_ALIASES = {"val": "validation", "valid": "validation"}

Files = dict[str, dict[str, list[Path]]]
"""Configuration → split → files, e.g. ``{"corpus": {"corpus": [Path("corpus.jsonl")]}}``."""


def configured_files(folder: Path) -> Files:
    """Return the data files of a repository's copy; empty if it holds none.

    Raises:
        DamagedError: the YAML head of the README is invalid.
    """
    return _from_readme(folder) or _by_convention(folder)


def file_suffix(path: Path) -> str:
    """Return a file's suffix without that of its compression."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    return Path(name).suffix


def absent_parts(files: list[Path]) -> list[str]:
    """Return the names of absent files of a split whose file names state how many there are."""
    present = {path.name for path in files}
    absent = []
    for name in sorted(present):
        match = _PART.fullmatch(name)
        if match is None or match["tail"].startswith("-"):  # a hash, which differs by file
            numbers = {m["part"] for n in present if (m := _PART.fullmatch(n))}
            if match is None or len(numbers) >= int(match["count"]):
                continue
            return [f"one of the {int(match['count'])} files {match['head']}-…-of-{match['count']}"]
        for part in range(int(match["count"])):
            other = f"{match['head']}-{part:05d}-of-{match['count']}{match['tail']}"
            if other not in present and other not in absent:
                absent.append(other)
    return absent


def _from_readme(folder: Path) -> Files:
    from huggingface_hub import RepoCard

    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    try:
        card = RepoCard.load(readme, ignore_metadata_errors=True).data.to_dict()
    except Exception as error:
        raise DamagedError(f"{readme}: its YAML head cannot be read ({error}).") from error
    configs: Files = {}
    for config in card.get("configs") or []:
        if not isinstance(config, dict) or not _is_name(config.get("config_name")):
            raise DamagedError(
                f"{readme}: an entry of 'configs' in its YAML head has no config_name in text."
            )
        splits = _declared_splits(folder, config.get("data_files"))
        if not splits:
            subfolder = folder / str(config.get("data_dir") or config["config_name"])
            splits = _conventional_splits(subfolder) if subfolder.is_dir() else {}
        if splits:
            configs[str(config["config_name"])] = splits
    return configs


def _is_name(value: Any) -> bool:
    """Return whether a value of the YAML head is a name; a year is read as a number.

    References in YAML can make a value of a few lines endless, so others are not made text.
    """
    return isinstance(value, str | int | float)


def _declared_splits(folder: Path, data_files: Any) -> dict[str, list[Path]]:
    """Resolve the ``data_files`` of one configuration, in any form that datasets accepts."""
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
        if fnmatch.fnmatchcase(name, plain) and file_suffix(Path(name)) in READERS
    ]


def _by_convention(folder: Path) -> Files:
    """Return one configuration for each data folder, and "default" for files at the top."""
    configs: Files = {}
    for subfolder in sorted(path for path in folder.iterdir() if path.is_dir()):
        if not subfolder.name.startswith("."):
            splits = _conventional_splits(subfolder)
            if splits:
                configs[subfolder.name] = splits
    top = _conventional_splits(folder, deep=False)
    if "data" in configs and len(configs) == 1:
        return {"default": configs["data"]}
    if top:
        names = {path.name.split(".")[0] for files in top.values() for path in files}
        if {"corpus", "queries"} <= names:
            return {}  # the BEIR layout, which has a reader of its own
        configs.setdefault("default", top)
    return configs


def _conventional_splits(folder: Path, *, deep: bool = True) -> dict[str, list[Path]]:
    """Group the data files of a folder by the split that their names state."""
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*") if deep else folder.iterdir()):
        if not path.is_file() or file_suffix(path) not in READERS:
            continue
        name = path.name.split(".")[0]
        name = re.sub(r"-\d{5}-of-\d{5}.*$", "", name)
        splits.setdefault(_SPLIT_ALIASES.get(name, name), []).append(path)
    return splits
