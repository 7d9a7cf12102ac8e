"""``bge-eval curve``: what shorter, compressed and indexed vectors cost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.formats.registry import Format
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.index import parse_params
from bge_eval.cli.options.machine import MachineFlags
from bge_eval.cli.options.model import (
    FamilyFlags,
    ModelFlags,
    PromptFlags,
    RemoteCode,
    SettingFlags,
)
from bge_eval.cli.options.served import ApiFlags
from bge_eval.cli.options.tasks import NamedTasks, split_names
from bge_eval.cli.quiet import prepare
from bge_eval.errors import StorageError, UsageError
from bge_eval.search.index import Precision

if TYPE_CHECKING:
    from bge_eval.curve.grid import Axes
    from bge_eval.models.dense import DenseModel
    from bge_eval.progress import Progress

_MODEL, _GRID, _DATA = "Model", "Grid", "Data"


@dataclass(frozen=True, slots=True)
class EmbedderFlags:
    """The embedder and how it is run."""

    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="An embedder with one vector for each text: hub id, local folder,"
            " builtin:all-MiniLM-L6-v2 or a server's address.",
            rich_help_panel=_MODEL,
        ),
    ]
    revision: Annotated[
        str | None,
        typer.Option(help="Branch, tag or commit of a hub model.", rich_help_panel=_MODEL),
    ] = None
    settings: SettingFlags = field(default_factory=SettingFlags)
    trust_remote_code: RemoteCode = False
    prompting: PromptFlags = field(default_factory=PromptFlags)
    family: FamilyFlags = field(default_factory=FamilyFlags)

    def with_dimension(self, dimension: int | None) -> ModelFlags:
        """Return the flags of ``bge-eval run`` with some first dimensions, None for all."""
        return ModelFlags(
            [self.model],
            revision=self.revision,
            settings=replace(self.settings, truncate_dim=dimension),
            trust_remote_code=self.trust_remote_code,
            prompting=self.prompting,
            family=self.family,
        )


@dataclass(frozen=True, slots=True)
class GridFlags:
    """The values that are tried on each axis."""

    grid_dim: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N,…",
            help="First dimensions to keep, such as full,256,64. Default: full,256,128.",
            rich_help_panel=_GRID,
        ),
    ] = None
    grid_vectors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND,…",
            help="float32, float16, int8, binary. Default: float32,int8,binary.",
            rich_help_panel=_GRID,
        ),
    ] = None
    grid_index: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INDEX",
            help="flat or a factory string of faiss, its parameters after it: 'IVF64,Flat"
            " nprobe=8'; repeat. Default: flat and 'HNSW32 efSearch=64'.",
            rich_help_panel=_GRID,
        ),
    ] = None
    grid_rescore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N,…",
            help="How many documents to score again with the full vectors. Default: none,100.",
            rich_help_panel=_GRID,
        ),
    ] = None
    index_depth: Annotated[
        int,
        typer.Option(
            min=1,
            max=100_000,
            metavar="N",
            help="Documents that an index is asked for; `bge-eval run` has the same option.",
            rich_help_panel=_GRID,
        ),
    ] = 100

    @property
    def axes(self) -> Axes:
        """The axes of the grid.

        Raises:
            UsageError: a value cannot be read.
        """
        from bge_eval.curve.grid import Axes, parse_dimensions, parse_index, parse_rescoring

        axes = Axes(depth=self.index_depth)
        if self.grid_dim:
            axes = replace(axes, dimensions=parse_dimensions(_values(self.grid_dim, "--grid-dim")))
        if self.grid_vectors:
            names = _values(self.grid_vectors, "--grid-vectors")
            axes = replace(axes, precisions=tuple(map(_precision, names)))
        if self.grid_index:
            parsed = [parse_index(text) for text in self.grid_index]
            indexes = tuple((name, parse_params(rest, "--grid-index")) for name, rest in parsed)
            axes = replace(axes, indexes=indexes)
        if self.grid_rescore:
            axes = replace(
                axes, rescoring=parse_rescoring(_values(self.grid_rescore, "--grid-rescore"))
            )
        return axes


@dataclass(frozen=True, slots=True)
class SourceFlags:
    """Where data come from."""

    data_dir: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of data sets, as of `bge-eval run`; repeat.", rich_help_panel=_DATA
        ),
    ] = None
    offline: Annotated[
        bool, typer.Option("--offline", help="Open no connection.", rich_help_panel=_DATA)
    ] = False
    allow_dangling_qrels: Annotated[
        bool,
        typer.Option(
            "--allow-dangling-qrels",
            help="Accept judgements of documents that the corpus lacks.",
            rich_help_panel=_DATA,
        ),
    ] = False
    allow_other_data: Annotated[
        bool,
        typer.Option(
            "--allow-other-data",
            help="Accept local data of another size or script than their task's name says.",
            rich_help_panel=_DATA,
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class CurvePrintFlags:
    """What is printed, and in which format."""

    picture: Annotated[
        Path | None,
        typer.Option(help="Write the Pareto picture here, as SVG.", metavar="FILE.svg"),
    ] = None
    form: Annotated[Format, typer.Option("--format", help="Format of the table.")] = Format.TERMINAL
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no progress and no notes; errors stay.")
    ] = False

    def check(self) -> None:
        """Refuse a picture that cannot be written, before anything is computed.

        Raises:
            UsageError: its name does not end in .svg, or is that of a folder.
            StorageError: its folder cannot be made.
        """
        picture = self.picture
        if picture is None:
            return
        if picture.suffix.casefold() != ".svg" or picture.is_dir():
            raise UsageError(f"--picture {picture}: the picture is SVG; name a file .svg.")
        try:
            picture.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(error, picture.parent) from error


@grouped
def curve(
    tasks: NamedTasks,
    model: EmbedderFlags,
    grid: GridFlags,
    server: ApiFlags,
    data: SourceFlags,
    printed: CurvePrintFlags,
    machine: MachineFlags,
) -> None:
    """Tell what shorter, compressed and indexed vectors cost: score, recall, memory and speed.

    The corpus is encoded once; every combination of dimension, representation, index and rescoring
    searches the same vectors and is tested against the exact search over the full ones.

    Examples:
      bge-eval curve --model builtin:all-MiniLM-L6-v2 --tasks demo

      bge-eval curve --model BAAI/bge-base-en-v1.5 --tasks SciFact --picture curve.svg

      bge-eval curve -m ./my-model -t SciFact --grid-dim full --grid-index "IVF64,Flat nprobe=8"
    """
    prepare(offline=data.offline)
    _check(model, server, machine, printed)
    axes, names = grid.axes, tasks.names
    from bge_eval.cli.console import TerminalProgress, stdout

    progress = TerminalProgress(quiet=printed.quiet)
    # Wrong names, and indexes that faiss cannot build, are refused before torch is loaded.
    _check_model(model.with_dimension(None), server, machine, data.offline)
    axes.grid()
    progress.note("Loading mteb and torch …")

    from bge_eval.cli.curves import CurveOutput
    from bge_eval.cli.formats.registry import write
    from bge_eval.curve.figures import figures
    from bge_eval.curve.measuring import Measuring, refuse_without_search
    from bge_eval.curve.picture import picture
    from bge_eval.results.whole import whole_file
    from bge_eval.suites.catalogue import plan
    from bge_eval.suites.sources import find_sources

    planned = plan(names, tasks.subset or [], tasks.lang or [])
    refuse_without_search(planned)
    sources = find_sources(
        planned,
        tuple(data.data_dir or ()),
        offline=data.offline,
        dangling=data.allow_dangling_qrels,
        note=progress.note,
    )

    def opened(dimension: int | None) -> DenseModel:
        return _opened(model.with_dimension(dimension), server, machine, data.offline, progress)

    measuring = Measuring(opened, axes, progress, data.allow_other_data)
    rows = figures(measuring.points(planned, sources))
    output = CurveOutput(rows, model.model, [task.name for task in planned])
    write(output, printed.form, stdout)  # first: it is not lost if the picture's disk is full
    if printed.picture is not None:
        with whole_file(printed.picture) as file:
            file.write(picture(rows, output.title))
        progress.note(f"The picture is {printed.picture}.")


def _check(
    model: EmbedderFlags, server: ApiFlags, machine: MachineFlags, printed: CurvePrintFlags
) -> None:
    """Refuse options that a curve cannot honour.

    Raises:
        UsageError: one of them is set.
    """
    machine.check()
    printed.check()
    server.check_requests([model.model])
    if model.settings.truncate_dim is not None:
        raise UsageError("--truncate-dim is an axis of the grid here: --grid-dim full,256,128.")
    if machine.no_store:
        raise UsageError(
            "--no-store cannot be used with curve, which reads the vectors of every dimension from"
            " the embedding store. --store FOLDER names another folder."
        )


def _check_model(model: ModelFlags, server: ApiFlags, machine: MachineFlags, offline: bool) -> None:
    from bge_eval.cli.records import model_options
    from bge_eval.models.opening import check_name

    check_name(model.names[0], model_options(model, server, machine, offline=offline))


def _opened(
    model: ModelFlags, server: ApiFlags, machine: MachineFlags, offline: bool, progress: Progress
) -> DenseModel:
    """Return the model, which must compute one vector for each text."""
    from bge_eval.cli.opening import introduce
    from bge_eval.cli.records import model_options
    from bge_eval.models.dense import DenseModel
    from bge_eval.models.opening import open_model

    options = model_options(model, server, machine, offline=offline)
    opened = open_model(model.names[0], options, progress)
    if not isinstance(opened, DenseModel):
        raise UsageError(
            f"--model {model.names[0]} has not one vector for each text, so that no index serves"
            " it. Name an embedder."
        )
    introduce(opened, progress)
    return opened


def _values(texts: list[str], option: str) -> list[str]:
    """Return the values of an axis.

    Raises:
        UsageError: there are none.
    """
    values = split_names(texts)
    if not values:
        raise UsageError(f"{option} is empty: name a value, or leave the option out.")
    return values


def _precision(text: str) -> Precision:
    if text not in list(Precision):
        raise UsageError(f"--grid-vectors takes {', '.join(Precision)}: '{text}'.")
    return Precision(text)
