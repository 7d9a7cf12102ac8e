"""Options about the model of ``bge-eval run``: which, its settings, its prompts, its family."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from bge_eval.cli.options.index import IndexFlags
from bge_eval.encode.protocol import ProtocolName
from bge_eval.encode.settings import Dtype, Pooling, Similarity
from bge_eval.models.fused import Fusion
from bge_eval.models.kinds import Loader

_MODEL, _PROMPTS, _FAMILIES = "Model", "Prompts", "Families of models"

RemoteCode: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run Python code that comes with the model.",
        rich_help_panel=_MODEL,
    ),
]
"""``--trust-remote-code``, of every command that opens a model."""


@dataclass(frozen=True, slots=True)
class SettingFlags:
    """Settings in place of the model's own."""

    pooling: Annotated[
        Pooling | None,
        typer.Option(help="Default: what the model's files say.", rich_help_panel=_MODEL),
    ] = None
    normalize: Annotated[
        bool | None,
        typer.Option(
            "--normalize/--no-normalize",
            help="Scale vectors to unit length. Default: what the model's files say.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    similarity: Annotated[
        Similarity | None,
        typer.Option(help="Default: what the model's files or mteb say.", rich_help_panel=_MODEL),
    ] = None
    max_length: Annotated[
        int | None,
        typer.Option(min=1, help="Cut inputs at this many tokens.", rich_help_panel=_MODEL),
    ] = None
    truncate_dim: Annotated[
        int | None,
        typer.Option(min=1, help="Keep the first dimensions only.", rich_help_panel=_MODEL),
    ] = None
    dtype: Annotated[
        Dtype,
        typer.Option(
            help="Precision of model and reranker. float32 reproduces published figures; bfloat16"
            " and float16 are faster on GPUs, bfloat16 also on CPUs that compute in it; int8, on"
            " CPUs, is calibrated with texts (bge-eval[int8]) and changes scores; int8-dynamic is"
            " torch's, for embedders.",
            rich_help_panel=_MODEL,
        ),
    ] = Dtype.FLOAT32
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines of {query, text} that int8 is calibrated with. Default: the package's"
            " own, in 13 languages.",
            rich_help_panel=_MODEL,
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class PromptFlags:
    """Texts before the inputs."""

    query_prompt: Annotated[
        str | None,
        typer.Option(
            help="Text before every query ('' for none). Default: the model's or mteb's.",
            rich_help_panel=_PROMPTS,
        ),
    ] = None
    document_prompt: Annotated[
        str | None,
        typer.Option(
            help="Text before every document ('' for none). Default: the model's or mteb's.",
            rich_help_panel=_PROMPTS,
        ),
    ] = None
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="TOML file: task name, task type, 'query' or 'document' = text.",
            rich_help_panel=_PROMPTS,
        ),
    ] = None
    protocol: Annotated[
        ProtocolName,
        typer.Option(
            help=(
                "Whose rules for prompts: mteb's leaderboard, BGE's model cards, or the model's"
                " own files."
            ),
            rich_help_panel=_PROMPTS,
        ),
    ] = ProtocolName.LEADERBOARD


@dataclass(frozen=True, slots=True)
class FamilyFlags:
    """Options that only some families of models have."""

    m3_mode: Annotated[
        str | None,
        typer.Option(
            help="BGE-M3: dense, sparse, colbert, or several with commas. Default: dense.",
            rich_help_panel=_FAMILIES,
        ),
    ] = None
    m3_weights: Annotated[
        str | None,
        typer.Option(
            help="Weights of these modes. Default: 1 dense, 0.3 sparse, 1 colbert.",
            rich_help_panel=_FAMILIES,
        ),
    ] = None
    known_as: Annotated[
        str | None,
        typer.Option(
            help="A local folder is a copy of this model of the hub; 'none' if of no known one.",
            rich_help_panel=_FAMILIES,
        ),
    ] = None
    instruction_format: Annotated[
        str | None,
        typer.Option(
            help="Form of a task's instruction before queries:"
            " '<instruct>{instruction}\\n<query>'.",
            rich_help_panel=_FAMILIES,
        ),
    ] = None
    examples: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of in-context examples (bge-en-icl): query, response, instruct.",
            rich_help_panel=_FAMILIES,
        ),
    ] = None
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a PEFT adapter, merged before the run.", rich_help_panel=_FAMILIES
        ),
    ] = None
    loader: Annotated[
        Loader | None,
        typer.Option(
            help="mteb: let mteb load and run the model by its registry.",
            rich_help_panel=_FAMILIES,
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class ModelFlags:
    """The models to evaluate and how each is run."""

    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Hub id (BAAI/bge-base-en-v1.5), local folder, builtin:all-MiniLM-L6-v2, bm25,"
            " run:PATH for saved runs, a server's address, or any object with encode"
            " (module:function); repeat for several.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    fuse: Annotated[
        Fusion | None,
        typer.Option(
            help="Evaluate the models, then their rankings fused: reciprocal ranks (rrf), scores"
            " scaled to [0, 1] (minmax) or by their spread (dbsf).",
            rich_help_panel=_MODEL,
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights in the order of --model, such as 1,0.5. Default: all equal.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    revision: Annotated[
        str | None,
        typer.Option(
            help="Branch, tag or commit of a hub model; for a server, the version its results are"
            " filed under.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    settings: SettingFlags = field(default_factory=SettingFlags)
    trust_remote_code: RemoteCode = False
    prompting: PromptFlags = field(default_factory=PromptFlags)
    searching: IndexFlags = field(default_factory=IndexFlags)
    family: FamilyFlags = field(default_factory=FamilyFlags)

    @property
    def names(self) -> list[str]:
        """The models, in the order typed."""
        return self.model or []
