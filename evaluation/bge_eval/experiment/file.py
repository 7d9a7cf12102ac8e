"""The file of an experiment, which states many settings of ``bge-eval run`` at once.

::

    tasks = ["SciFact"]                # options of every setting, by their names without dashes
    data-dir = "datasets"

    [[models]]
    model = "builtin:all-MiniLM-L6-v2"
    max-length = [128, 256]            # a list: one setting for each value
    paraphrases = "prompts.toml"       # one setting for each prompt; at the top: of every model
    [[models]]
    model = ["bm25", "builtin:all-MiniLM-L6-v2"]
    fuse = "minmax"
    weights = ["1,1", "1,2", "1,4"]

    [[rerankers]]                      # each with each model
    reranker = "BAAI/bge-reranker-base"
    rerank-top-k = [20, 50, 100]

    [grid]                             # every combination of these, with each model
    truncate-dim = [384, 128]

    [choose]                           # these are chosen on another split, the best is reported
    split = "train"
    options = ["weights", "rerank-top-k"]
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError, MissingError, UsageError, did_you_mean, one_line
from bge_eval.experiment.paraphrases import KEY, read_paraphrases

COMMON = frozenset(
    {"tasks", "subset", "lang", "data-dir", "offline", "available", "output", "fail-fast"}
    | {"allow-dangling-qrels", "allow-other-data", "store"}
    | {"track", "track-project"}
    | {"limit", "lite", "lite-runs", "lite-top", "lite-sample", "lite-seed"}
)
"""Options that are the same in all settings, whose results make one table."""
PRINTING = frozenset({"dry-run", "metric", "format", "quiet", "profile", "show-config"})
"""Options about what is printed, which the command line states for all settings."""
_ELSEWHERE = PRINTING | (
    {"overwrite", "no-store", "label", "shard", "search-shards", "track-name"}
    | {"engine", "ray-address", "workers", "gpus-per-worker", "estimate", "price"}
)
"""Options that a file cannot state."""
_TABLES = ("models", "rerankers", "grid", "choose", KEY)

Options = Mapping[str, Any]
"""Option of ``bge-eval run``, without dashes → its value."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: a command ``bge-eval run`` of its own."""

    options: Options
    """All of its options."""

    def words(self) -> list[str]:
        """Return the options as the command line takes them."""
        words: list[str] = []
        for name, value in self.options.items():
            if isinstance(value, bool):
                words.append(f"--{name}" if value else f"--no-{name}")
                continue
            for each in value if isinstance(value, list) else [value]:
                words += [f"--{name}", str(each)]
        return words

    def label(self, names: Iterable[str]) -> str:
        """Return some of its options for people, such as ``max-length 128, rerank-top-k 20``."""
        parts = []
        for name in names:
            if name not in self.options:
                continue
            value = self.options[name]
            text = " + ".join(map(str, value)) if isinstance(value, list) else str(value)
            parts.append(text if name in ("model", "reranker") else f"{name} {text or repr('')}")
        return ", ".join(parts)

    def without(self, names: Iterable[str]) -> str:
        """Return its other options as one text; settings that differ in ``names`` have the same."""
        left = {name: value for name, value in self.options.items() if name not in names}
        return json.dumps(left, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Choice:
    """Options whose value is chosen on a split that is not reported."""

    split: str
    """The split that chooses, such as ``dev``."""
    options: tuple[str, ...]
    """The options that are chosen."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """The settings of a file."""

    file: Path
    """The file."""
    settings: tuple[Setting, ...]
    """Every combination, in the order of the file."""
    choice: Choice | None = None
    """What is chosen on another split; None for nothing."""

    @property
    def varied(self) -> list[str]:
        """The options in which settings differ, in the order of the file."""
        names = dict.fromkeys(name for setting in self.settings for name in setting.options)
        return [
            name
            for name in names
            if len({json.dumps(setting.options.get(name)) for setting in self.settings}) > 1
        ]

    def groups(self) -> list[list[Setting]]:
        """Return the settings, those together that differ in chosen options only."""
        chosen = self.choice.options if self.choice else ()
        groups: dict[str, list[Setting]] = {}
        for setting in self.settings:
            groups.setdefault(setting.without(chosen), []).append(setting)
        return list(groups.values())


def read_experiment(file: Path, repeats: Mapping[str, bool], typed: Options) -> Experiment:
    """Read a file.

    Args:
        file: the TOML file.
        repeats: every option of ``bge-eval run`` → whether it may be repeated.
        typed: options of the command line, which hold for every setting.

    Raises:
        MissingError: there is no such file.
        DamagedError: it is no TOML.
        UsageError: a key is unknown or stands in the wrong place, or nothing is left to choose.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingError(f"There is no experiment {file}.") from error
    except (OSError, ValueError) as error:
        raise DamagedError(f"{file} is no readable TOML file ({one_line(error)}).") from error
    reader = _Reader(file, repeats)
    common = {name: value for name, value in content.items() if name not in _TABLES}
    reader.check(common, "", (*_TABLES,))
    if twice := [name for name in typed if name in content]:
        raise UsageError(
            f"--{twice[0]} is on the command line and '{twice[0]}' in {file}: leave one of them"
            " out."
        )
    settings = reader.settings(content, {**typed, **common})
    experiment = Experiment(file, tuple(settings), reader.choice(content.get("choose")))
    if experiment.choice and all(len(group) == 1 for group in experiment.groups()):
        raise UsageError(
            f"{file}: [choose] names {', '.join(experiment.choice.options)}, and no two settings"
            " differ in that. Give a list of values, or leave [choose] out."
        )
    return experiment


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the tables of one file."""

    file: Path
    """The file, for messages."""
    repeats: Mapping[str, bool]
    """Option → whether it may be repeated."""

    def settings(self, content: Mapping[str, Any], common: Options) -> list[Setting]:
        """Return every combination of models, grid and rerankers."""
        models = self._entries(content.get("models"), "models", "model")
        rerankers = self._entries(content.get("rerankers"), "rerankers", "reranker")
        grid = content.get("grid", {})
        if not isinstance(grid, dict):
            raise UsageError(f"{self.file}: [grid] is a table of options and lists of values.")
        self.check(grid, "[grid]")
        for name, values in grid.items():
            if not isinstance(values, list) or not values:
                raise UsageError(f"{self.file}: [grid] {name} takes a list of values.")
        prompts = self._paraphrases(content, "the top")
        axes = [[*models], [*prompts], self._combinations(grid, always=True), [*rerankers]]
        settings: dict[str, Setting] = {}
        for parts in itertools.product(*axes):
            options = self._joined((common, *parts))
            setting = Setting(options)
            if setting.without(()) in settings:
                raise UsageError(
                    f"{self.file} states a setting twice: {setting.label(options)}. Leave one out."
                )
            settings[setting.without(())] = setting
        return list(settings.values())

    def choice(self, table: Any) -> Choice | None:
        """Return what ``[choose]`` states."""
        if table is None:
            return None
        keys = sorted(table) if isinstance(table, dict) else []
        if keys != ["options", "split"] or not isinstance(table["split"], str):
            raise UsageError(
                f'{self.file}: [choose] takes split = "dev" and options = ["rerank-top-k"], and has'
                f" {', '.join(keys) or repr(table)}."
            )
        options = table["options"] if isinstance(table["options"], list) else [table["options"]]
        self.check(dict.fromkeys(map(str, options)), "[choose]")
        return Choice(table["split"], tuple(map(str, options)))

    def check(self, options: Options, place: str, tables: Sequence[str] = ()) -> None:
        """Refuse keys that are no option, or no option of this place.

        Args:
            options: the keys and their values.
            place: the table that they stand in; "" for the top.
            tables: what else may stand there.
        """
        for name in options:
            if name not in self.repeats or name in _ELSEWHERE:
                known = [*(name for name in self.repeats if name not in _ELSEWHERE), *tables]
                where = f"{self.file}, {place}" if place else str(self.file)
                reason = (
                    "cannot be stated in an experiment"
                    if name in _ELSEWHERE
                    else f"is no option of bge-eval run.{did_you_mean(name, known)} Keys are its"
                    f" options without dashes{', and ' if tables else ''}{', '.join(tables)}"
                )
                raise UsageError(f"{where}: '{name}' {reason}.")
            if place and name in COMMON:
                raise UsageError(
                    f"{self.file}, {place}: '{name}' is the same in all settings; put it at the"
                    " top of the file."
                )

    def _entries(self, value: Any, table: str, main: str) -> list[Options]:
        """Return the settings of ``models`` or ``rerankers``; one without options for none."""
        if value is None:
            return [{}]
        entries = value if isinstance(value, list) else [value]
        combinations: list[Options] = []
        for entry in entries:
            options = {main: entry} if isinstance(entry, str) else entry
            if not isinstance(options, dict) or main not in options:
                raise UsageError(
                    f'{self.file}: an entry of [[{table}]] has {main} = "…", and this has'
                    f" {', '.join(options) if isinstance(options, dict) else repr(entry)}."
                )
            prompts = self._paraphrases(options, f"[[{table}]]") if table == "models" else [{}]
            options = {name: value for name, value in options.items() if name != KEY}
            self.check(options, f"[[{table}]]")
            combinations += [
                self._joined(parts)
                for parts in itertools.product(self._combinations(options), prompts)
            ]
        return combinations

    def _paraphrases(self, options: Options, place: str) -> list[Options]:
        """Return the prompts of the file that some options name; one without options for none."""
        if KEY not in options:
            return [{}]
        if not isinstance(options[KEY], str):
            raise UsageError(
                f"{self.file}, {place}: {KEY} is the name of a file of prompts, not"
                f" {options[KEY]!r}."
            )
        return list(read_paraphrases(Path(options[KEY])))

    def _combinations(self, options: Options, *, always: bool = False) -> list[Options]:
        """Return one mapping for every combination of listed values.

        Args:
            options: option → value, or a list of values.
            always: every value is a list of values, also of an option that may be repeated.
        """
        axes = []
        for name, value in options.items():
            several = isinstance(value, list) and (
                always or not self.repeats[name] or all(isinstance(each, list) for each in value)
            )
            values = value if several else [value]
            if not values:
                raise UsageError(f"{self.file}: {name} has no value.")
            axes.append([(name, each) for each in values])
        return [dict(combination) for combination in itertools.product(*axes)]

    def _joined(self, parts: Iterable[Options]) -> Options:
        joined: dict[str, Any] = {}
        for part in parts:
            if twice := [name for name in part if name in joined]:
                raise UsageError(
                    f"{self.file} states {twice[0]} twice for {part.get('model', 'one setting')}:"
                    " in two places that apply to it. Leave one out."
                )
            joined |= part
        return joined
