"""``bge-eval store``: list, merge and remove stored embeddings."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.grouped import grouped

if TYPE_CHECKING:
    from bge_eval.encode.store import StoredSpace
    from bge_eval.search.kept import KeptIndex

_SECONDS = {"h": 3600, "d": 86400, "w": 7 * 86400}
_BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}


def show_store(
    context: typer.Context,
    store: Annotated[
        Path | None,
        typer.Option(help="The store's folder. Default: in the user's cache folder."),
    ] = None,
) -> None:
    """List the stored embeddings: model, prompt, how many texts, how large, when last used.

    Converted models and faiss indexes are named below them.

    Examples:
      bge-eval store

      bge-eval store prune --older-than 30d
    """
    if context.invoked_subcommand is not None:
        return
    from bge_eval.cli.console import stderr, stdout
    from bge_eval.encode.cache import cache_folder
    from bge_eval.encode.store import default_store, stored_spaces
    from bge_eval.runtime.conversions import stored_folder, stored_models
    from bge_eval.search.kept import kept_indexes

    root = _existing(store) or default_store()
    spaces = stored_spaces(root)
    if spaces:
        stdout.print(_table(spaces))
    lines = [f"{_size(sum(space.bytes for space in spaces))} in {root}"]
    if not spaces:
        lines = [f"{root} holds no embeddings."]
    models = stored_models(cache_folder()) if store is None else []
    if models:
        size = _size(sum(entry.bytes for entry in models))
        names = ", ".join({entry.model for entry in models})
        lines.append(f"{size} of converted models in {stored_folder(cache_folder())}: {names}")
    folder = cache_folder() / "indexes"
    indexes = kept_indexes(folder) if store is None else []
    if indexes:
        lines.append(
            f"{_size(sum(entry.bytes for entry in indexes))} of faiss indexes in {folder}:"
        )
        for entry in indexes:
            what = f" ({entry.name})" if entry.name else ""
            lines.append(f"  {_size(entry.bytes)} of {entry.model or 'an unknown model'}{what}")
    for line in lines:
        stderr.print(line, style="dim", markup=False, soft_wrap=True, highlight=False)


@dataclass(frozen=True, slots=True)
class PruneFlags:
    """Which stored embeddings are removed."""

    store: Annotated[
        Path | None,
        typer.Option(help="The store's folder. Default: in the user's cache folder."),
    ] = None
    model: Annotated[
        str | None, typer.Option(help="Remove those of models whose name contains this.")
    ] = None
    older_than: Annotated[
        str | None, typer.Option(help="Remove those not used for this long: 12h, 30d, 4w.")
    ] = None
    max_size: Annotated[
        str | None,
        typer.Option(
            help="Remove the least recently used until no more than this is left: 500MB, 20GB."
        ),
    ] = None
    everything: Annotated[bool, typer.Option("--all", help="Remove them all.")] = False

    def check(self) -> None:
        """Refuse two conditions, of which nobody knows whether both must hold.

        Raises:
            UsageError: there are two or more.
        """
        from bge_eval.errors import UsageError

        conditions = {
            "--model": self.model,
            "--older-than": self.older_than,
            "--max-size": self.max_size,
            "--all": self.everything or None,
        }
        named = [name for name, value in conditions.items() if value is not None]
        if len(named) > 1:
            raise UsageError(
                f"{' and '.join(named)} say different things about what to remove: give one of"
                " them. Nothing was removed."
            )


@grouped
def prune(flags: PruneFlags) -> None:
    """Remove stored embeddings, converted models, faiss indexes; they are made again when needed.

    One condition at a time. With --store only that folder's embeddings. --max-size counts
    embeddings alone; the indexes of a model go with the last of its embeddings.

    Examples:
      bge-eval store prune --older-than 30d

      bge-eval store prune --max-size 20GB

      bge-eval store prune --model bge-base
    """
    from bge_eval.cli.console import stderr
    from bge_eval.encode.cache import cache_folder
    from bge_eval.encode.store import default_store, stored_spaces
    from bge_eval.encode.store import prune as remove
    from bge_eval.runtime.conversions import prune_models

    flags.check()
    unused = _quantity(flags.older_than, _SECONDS, "--older-than", "30d")
    removed = remove(
        _existing(flags.store) or default_store(),
        model=flags.model,
        older_than=unused,
        largest=_quantity(flags.max_size, _BYTES, "--max-size", "20GB"),
        everything=flags.everything,
    )
    freed = _size(sum(space.bytes for space in removed))
    spaces = "1 set" if len(removed) == 1 else f"{len(removed)} sets"
    stderr.print(f"Removed {spaces} of embeddings, {freed}.", highlight=False)
    if flags.store is not None:
        return
    removed_models = prune_models(
        cache_folder(), model=flags.model, older_than=unused, everything=flags.everything
    )
    if removed_models:
        freed = _size(sum(entry.bytes for entry in removed_models))
        number = len(removed_models)
        models = "1 converted model" if number == 1 else f"{number} converted models"
        stderr.print(f"Removed {models}, {freed}.", highlight=False)
    gone = {space.model for space in removed}
    left = {space.model for space in stored_spaces(default_store())}
    removed_indexes = _pruned_indexes(flags, unused, gone - left)
    if removed_indexes:
        freed = _size(sum(entry.bytes for entry in removed_indexes))
        number = len(removed_indexes)
        indexes = "1 faiss index" if number == 1 else f"{number} faiss indexes"
        stderr.print(f"Removed {indexes}, {freed}.", highlight=False)


def _pruned_indexes(
    flags: PruneFlags, unused: int | None, without_vectors: Collection[str]
) -> list[KeptIndex]:
    """Remove the kept indexes that match, or whose model's embeddings were the last ones.

    Args:
        flags: what to remove.
        unused: remove those not used for so many seconds; None for no limit.
        without_vectors: models, with their precision in parentheses, that lost their embeddings.
    """
    from bge_eval.encode.cache import cache_folder, entries_to_remove
    from bge_eval.search.kept import kept_indexes, remove_indexes, remove_parts

    folder = cache_folder() / "indexes"
    entries = kept_indexes(folder)
    removed = entries_to_remove(entries, flags.model, unused, flags.everything)
    names = {model.rpartition(" (")[0] for model in without_vectors}
    removed += [entry for entry in entries if entry.model in names and entry not in removed]
    remove_indexes(folder, removed)
    remove_parts(folder)
    return removed


def merge(
    sources: Annotated[
        list[Path], typer.Argument(help="Stores of other machines; they stay as they are.")
    ],
    store: Annotated[
        Path | None,
        typer.Option(help="The store to add to. Default: in the user's cache folder."),
    ] = None,
) -> None:
    """Add the embeddings that other machines have encoded.

    Examples:
      bge-eval store merge /mnt/node1/store /mnt/node2/store

      bge-eval store merge ./store-1 ./store-2 --store ./store
    """
    from bge_eval.cli.console import stderr
    from bge_eval.encode.merge import merge as add
    from bge_eval.encode.store import default_store
    from bge_eval.errors import DamagedError

    root = store or default_store()
    damaged: list[str] = []
    for source in sources:
        done = add(source.expanduser(), root)
        damaged += done.damaged
        stderr.print(
            f"{source}: {done.added:,} vectors added, {done.present:,} were there already.",
            highlight=False,
            soft_wrap=True,
        )
    if damaged:
        raise DamagedError(
            "\n".join(damaged) + "\nThe rest was added. Run the part of that machine again to"
            " encode what is missing, or merge another copy."
        )


def _existing(store: Path | None) -> Path | None:
    """Return the folder that the user names.

    Raises:
        MissingError: it is not there; a mistyped folder is not an empty one.
    """
    from bge_eval.errors import MissingError

    if store is None:
        return None
    folder = store.expanduser()
    if not folder.is_dir():
        raise MissingError(
            f"--store {store} is not there. Name the folder that a run was given as --store, or"
            " leave the option out for the one in your cache folder."
            if not folder.exists()
            else f"--store {store} is a file; expected the folder of a store."
        )
    return folder


def _table(spaces: Sequence[StoredSpace]) -> object:
    from datetime import datetime

    from rich.table import Table

    table = Table()
    table.add_column("model", overflow="fold")
    table.add_column("prompt", overflow="fold")
    for heading in ("dimension", "texts", "size"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    for space in spaces:
        used = datetime.fromtimestamp(space.used).strftime("%Y-%m-%d %H:%M")
        prompt = repr(space.prompt) if space.prompt else ""
        cells = [str(space.dimension), f"{space.texts:,}", _size(space.bytes), used]
        table.add_row(space.model, prompt, *cells)
    return table


def _size(count: int) -> str:
    for unit in ("TB", "GB", "MB"):
        if count >= _BYTES[unit]:
            return f"{count / _BYTES[unit]:.1f} {unit}"
    return f"{count / 1000:.0f} kB"


def _quantity(text: str | None, units: dict[str, int], option: str, example: str) -> int | None:
    if text is None:
        return None
    from bge_eval.errors import UsageError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text.strip())
    known = {unit.casefold(): factor for unit, factor in units.items()}
    if match is None or match[2].casefold() not in known:
        raise UsageError(
            f"{option} is '{text}'; it is a number with {', '.join(units)}: {example}."
        )
    return int(float(match[1]) * known[match[2].casefold()])
