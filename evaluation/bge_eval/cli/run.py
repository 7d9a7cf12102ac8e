"""``bge-eval run``: evaluate, save, print the table."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.families import (
    Adapter,
    Examples,
    InstructionFormat,
    LoadedBy,
    M3Mode,
    M3Weights,
)
from bge_eval.cli.quiet import DEBUG, prepare
from bge_eval.cli.serving import (
    ApiConcurrency,
    ApiKind,
    ApiModel,
    ApiTimeout,
    RerankerApi,
    RerankerApiModel,
    served_reranker,
)
from bge_eval.cli.show import Form
from bge_eval.cli.stages import (
    FirstStage,
    RerankerCompress,
    RerankerCompressLayers,
    RerankerKindOption,
    RerankerLayers,
    RerankerMaxLength,
    RerankerName,
    RerankTopK,
    layer_list,
    second_stage,
    without_model,
)
from bge_eval.encode.protocol import ProtocolName
from bge_eval.encode.settings import Backend, Dtype, Overrides, Pooling, Similarity
from bge_eval.errors import UsageError
from bge_eval.models.fused import FusedModel, Fusion, check_parts, parse_weights

if TYPE_CHECKING:
    from bge_eval.evaluation import Report
    from bge_eval.models.base import Model
    from bge_eval.models.transformer import EncoderModel
    from bge_eval.progress import Progress
    from bge_eval.rerank.reranker import Reranker
    from bge_eval.suites.catalogue import PlannedTask

DEFAULT_OUTPUT = Path("results/runs")

_MODEL, _DATA, _MACHINE = "Model", "Data and results", "Machine"


def run(  # one parameter for each option of the command
    tasks: Annotated[
        list[str],
        typer.Option(
            help="A suite (beir), a task (SciFact), a folder of your own (./tickets) or a task"
            " class (module:Class). Several: with commas, with spaces, or repeat."
        ),
    ],
    more_tasks: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="TASKS")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Hub id (BAAI/bge-base-en-v1.5), local folder, builtin:all-MiniLM-L6-v2, bm25,"
            " run:PATH for saved runs, a server's address, or any object with encode"
            " (module:function); repeat for several.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    subset: Annotated[
        list[str] | None,
        typer.Option(help="Only these subsets (languages) of tasks that have several; repeat."),
    ] = None,
    lang: Annotated[
        list[str] | None,
        typer.Option(help="Only tasks and subsets of these languages (eng, zho, de); repeat."),
    ] = None,
    fuse: Annotated[
        Fusion | None,
        typer.Option(
            help="Evaluate the models, then their rankings fused: reciprocal ranks (rrf), scores"
            " scaled to [0, 1] (minmax) or by their spread (dbsf).",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights in the order of --model, such as 1,0.5. Default: all equal.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            help="Branch, tag or commit of a hub model; for a server, the version its results are"
            " filed under.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    pooling: Annotated[
        Pooling | None,
        typer.Option(help="Default: what the model's files say.", rich_help_panel=_MODEL),
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(
            "--normalize/--no-normalize",
            help="Scale vectors to unit length. Default: what the model's files say.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    similarity: Annotated[
        Similarity | None,
        typer.Option(help="Default: what the model's files or mteb say.", rich_help_panel=_MODEL),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=1, help="Cut inputs at this many tokens.", rich_help_panel=_MODEL),
    ] = None,
    query_prompt: Annotated[
        str | None,
        typer.Option(
            help="Text before every query ('' for none). Default: the model's or mteb's.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    document_prompt: Annotated[
        str | None,
        typer.Option(help="Text before every document, likewise.", rich_help_panel=_MODEL),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="TOML file: task name, task type, 'query' or 'document' = text.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    protocol: Annotated[
        ProtocolName,
        typer.Option(
            help="Where the query prompt goes: as mteb's leaderboard, or as BGE's model cards.",
            rich_help_panel=_MODEL,
        ),
    ] = ProtocolName.LEADERBOARD,
    truncate_dim: Annotated[
        int | None,
        typer.Option(min=1, help="Keep the first dimensions only.", rich_help_panel=_MODEL),
    ] = None,
    dtype: Annotated[
        Dtype,
        typer.Option(
            help="Precision of model and reranker. float32 reproduces published figures; bfloat16"
            " and float16 are faster on GPUs, bfloat16 also on CPUs that compute in it; int8, for"
            " embedders on the CPU, changes scores.",
            rich_help_panel=_MODEL,
        ),
    ] = Dtype.FLOAT32,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code",
            help="Run Python code that comes with the model.",
            rich_help_panel=_MODEL,
        ),
    ] = False,
    m3_mode: M3Mode = None,
    m3_weights: M3Weights = None,
    instruction_format: InstructionFormat = None,
    examples: Examples = None,
    adapter: Adapter = None,
    loader: LoadedBy = None,
    reranker: RerankerName = None,
    rerank_top_k: RerankTopK = 100,
    reranker_max_length: RerankerMaxLength = None,
    reranker_kind: RerankerKindOption = None,
    reranker_layers: RerankerLayers = None,
    reranker_compress: RerankerCompress = None,
    reranker_compress_layers: RerankerCompressLayers = None,
    first_stage: FirstStage = None,
    api: ApiKind = None,
    api_model: ApiModel = None,
    api_concurrency: ApiConcurrency = 8,
    api_timeout: ApiTimeout = 600.0,
    reranker_api: RerankerApi = None,
    reranker_api_model: RerankerApiModel = None,
    data_dir: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of data sets, each a folder or zip in it (<dir>/SciFact/corpus.jsonl …),"
            " in any of the layouts that the README lists; repeat.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Open no connection.", rich_help_panel=_DATA)
    ] = False,
    available: Annotated[
        bool,
        typer.Option(
            "--available", help="Leave out tasks whose data are missing.", rich_help_panel=_DATA
        ),
    ] = False,
    allow_dangling_qrels: Annotated[
        bool,
        typer.Option(
            "--allow-dangling-qrels",
            help="Accept judgements of documents that the corpus lacks.",
            rich_help_panel=_DATA,
        ),
    ] = False,
    allow_other_data: Annotated[
        bool,
        typer.Option(
            "--allow-other-data",
            help="Accept local data of another size or script than their task's name says.",
            rich_help_panel=_DATA,
        ),
    ] = False,
    output: Annotated[
        Path, typer.Option(help="Folder of results.", rich_help_panel=_DATA)
    ] = DEFAULT_OUTPUT,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Run again what is there.", rich_help_panel=_DATA),
    ] = False,
    metric: Annotated[
        str,
        typer.Option(help="Measure of the table: main (each task's own), nDCG@10, RR@10, R@100 …"),
    ] = "main",
    form: Annotated[Form, typer.Option("--format", help="Form of the table.")] = Form.TERMINAL,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no notes; errors are still said.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda, cuda:1, mps, or several: cuda:0,cuda:1. Default: every GPU there is."
            " A reranker takes the first.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    batch_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most tokens of a batch, padding included. Default: by device.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    backend: Annotated[
        Backend,
        typer.Option(
            help="Library of the forward pass; auto takes the fastest that gives torch's vectors.",
            rich_help_panel=_MACHINE,
        ),
    ] = Backend.AUTO,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Folder of stored embeddings. Default: in the user's cache folder.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    no_store: Annotated[
        bool,
        typer.Option(
            "--no-store",
            help="Encode everything, and store no embedding.",
            rich_help_panel=_MACHINE,
        ),
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Print seconds and rates by phase.", rich_help_panel=_MACHINE
        ),
    ] = False,
) -> None:
    """Evaluate a model on tasks, save the results, print the table.

    Examples:
      bge-eval run --model BAAI/bge-base-en-v1.5 --tasks beir

      bge-eval run --model ./my-model --tasks SciFact --data-dir ./datasets --offline

      bge-eval run --model BAAI/bge-base-en-v1.5 --reranker BAAI/bge-reranker-base --tasks SciFact

      bge-eval run --model http://localhost:7997 --api infinity --tasks ./tickets

      bge-eval run --fuse rrf --model bm25 --model BAAI/bge-base-en-v1.5 --tasks SciFact
    """
    prepare(offline=offline)
    from bge_eval.cli.columns import measure_and_key
    from bge_eval.cli.console import TerminalProgress, stderr, stdout
    from bge_eval.cli.profile import show_profiles
    from bge_eval.cli.show import show
    from bge_eval.leaderboard.board import leaderboard
    from bge_eval.measures.mteb_keys import MAIN_KEY

    if store is not None and no_store:
        raise UsageError("--store and --no-store contradict each other: leave one of them out.")
    measure, key = measure_and_key(metric)
    progress = TerminalProgress(quiet=quiet)
    progress.note("Loading mteb and torch …")

    from bge_eval.encode.prompts import read_prompts
    from bge_eval.evaluation import Options, evaluate
    from bge_eval.models.opening import ModelOptions, open_model
    from bge_eval.models.saved_runs import GivenRuns
    from bge_eval.remote.client import Limits, is_address
    from bge_eval.rerank.families import RerankerOptions
    from bge_eval.suites.catalogue import plan, suites

    names = [name for item in [*tasks, *(more_tasks or [])] for name in item.split(",") if name]
    planned = plan(names, subset or [], lang or [])
    models = model or []
    chosen = ModelOptions(
        revision,
        Overrides(
            pooling=pooling,
            normalize=normalize,
            max_length=max_length,
            similarity=similarity,
            dtype=dtype,
            truncate_dim=truncate_dim,
            query_prompt=query_prompt,
            document_prompt=document_prompt,
            instruction_format=instruction_format,
            prompts=read_prompts(prompts) if prompts else None,
            protocol=protocol,
        ),
        device=device,
        batch_tokens=batch_tokens,
        backend=backend,
        store=store or not no_store,
        trust_remote_code=trust_remote_code,
        offline=offline,
        api=api,
        api_model=api_model,
        limits=Limits(concurrency=api_concurrency, timeout=api_timeout),
        m3_mode=m3_mode,
        m3_weights=m3_weights,
        examples=examples,
        adapter=adapter,
        loader=loader,
        shared=len(models) > 1,
    )
    weighed = _weights(weights, models, fuse)
    second: Reranker | None = None
    if reranker is not None and is_address(reranker):
        second = served_reranker(
            reranker,
            reranker_api,
            reranker_api_model,
            chosen.limits,
            batch_tokens,
            offline=offline,
            progress=progress,
        )
    elif reranker_api is not None:
        raise UsageError("--reranker-api is for --reranker with a server's address, http://host.")
    elif reranker is not None:
        second = second_stage(
            reranker,
            RerankerOptions(
                dtype=str(dtype),
                kind=reranker_kind,
                max_length=reranker_max_length,
                layers=reranker_layers,
                compress_ratio=reranker_compress,
                compress_layers=layer_list(reranker_compress_layers),
                device=device,
                batch_tokens=batch_tokens,
                trust_remote_code=trust_remote_code,
                backend=str(backend),
            ),
            offline=offline,
            progress=progress,
        )
    if models and first_stage is not None:
        raise UsageError("--model and --first-stage both name the first stage: give one of them.")
    opened = [open_model(name, chosen, progress) for name in models]
    if not models:
        first, second = without_model(first_stage, second, progress)
        opened = [first]
    options = Options(
        output=output,
        data_dirs=tuple(data_dir or ()),
        offline=offline,
        overwrite=overwrite,
        dangling=allow_dangling_qrels,
        other_data=allow_other_data,
        available=available,
        rerank_top_k=rerank_top_k,
    )
    reports = []
    for each in opened:
        _introduce(each, progress)
        if not (fuse and isinstance(each, GivenRuns)):
            own = None if fuse else second
            reports.append(evaluate(each, planned, options, reranker=own, progress=progress))
    if fuse:
        fused = _fused(fuse, weighed, opened, reports, progress)
        _introduce(fused, progress)
        reports.append(evaluate(fused, planned, options, reranker=second, progress=progress))
    paths = [path for report in reports for found in report.done.values() for path in found]
    if paths:
        title = names[0] if len(names) == 1 and names[0] in suites() else ""
        board = leaderboard(
            paths,
            measure=_main_measure(planned) if key == MAIN_KEY else measure,
            key=key,
            tasks=[task.name for task in planned],
            title=title,
        )
        show(board, form, stdout)
        if profile:
            show_profiles(paths, stderr)
        progress.note(f"Results are in {output}.")
    failed = [failure for report in reports for failure in report.failed.items()]
    if failed:
        for name, error in failed:
            typer.echo(f"Error: {name} was not evaluated. {error}", err=True)
            if os.environ.get(DEBUG):
                traceback.print_exception(error)
        raise typer.Exit(max(error.exit_code for _, error in failed))


def _weights(weights: str | None, models: list[str], fuse: Fusion | None) -> list[float] | None:
    """Read and check what the fusion needs, before any model is opened."""
    if fuse is None:
        if weights:
            raise UsageError("--weights belongs to --fuse; add --fuse rrf or --fuse minmax.")
        return None
    weighed = parse_weights(weights) if weights is not None else None
    check_parts(len(models), weighed)
    return weighed


def _fused(
    fuse: Fusion,
    weights: list[float] | None,
    models: list[Model],
    reports: list[Report],
    progress: Progress,
) -> FusedModel:
    """Fuse the runs that the models have just left, and those that were there before."""
    from bge_eval.models.saved_runs import GivenRuns, given_runs

    done = iter(reports)
    parts: list[Model] = []
    for each in models:
        if isinstance(each, GivenRuns):
            parts.append(each)
            continue
        report = next(done)
        paths = [path for found in report.done.values() for path in found]
        if not paths:
            raise next(iter(report.failed.values()))
        parts.append(given_runs(paths[0].parent, progress))
    return FusedModel(parts, fuse, weights, progress=progress)


def _main_measure(planned: list[PlannedTask]) -> str:
    """Name the main measure of some tasks, if they share it."""
    mains = {task.task.metadata.main_score for task in planned}
    return "nDCG@10" if mains == {"ndcg_at_10"} else "main score"


def _introduce(model: Model, progress: Progress) -> None:
    """Say how the model will be run, since every one of these decides the score."""
    from bge_eval.models.transformer import EncoderModel

    if type(model).__str__ is not object.__str__:
        progress.note(str(model))
    elif isinstance(model, EncoderModel):
        _introduce_encoder(model, progress)


def _introduce_encoder(encoder: EncoderModel, progress: Progress) -> None:
    settings = encoder.settings
    prompts = encoder.prompts
    said = encoder.overrides.query_prompt
    query = prompts.texts.get("query", "") if said is None else said
    source = prompts.source if said is None else "--query-prompt"
    parts = [
        f"{settings.pooling} pooling",
        "normalised" if settings.normalize else "not normalised",
        f"{settings.max_length} tokens",
        str(settings.similarity),
        str(settings.dtype),
        f"query prompt {query!r} ({source})" if query else "no query prompt",
    ]
    if prompts.instructions is not None and said is None:
        parts[-1] = f"mteb's task instructions ({source})"
    if encoder.overrides.prompts:
        parts.append(f"{len(encoder.overrides.prompts)} prompts of --prompts before them")
    if encoder.protocol.name is not ProtocolName.LEADERBOARD:
        parts.append(f"by the rules of {encoder.protocol.name}")
    if settings.truncate_dim:
        parts.insert(2, f"first {settings.truncate_dim} dimensions")
    progress.note(f"{encoder.files.name} at {encoder.files.revision[:12]}: {', '.join(parts)}")
    if twin := encoder.unnamed_twin():
        progress.note(
            f"Note: this folder has the name of {twin}, for which mteb knows a query prompt, but"
            " it brings none itself. If it is that model, give it with --query-prompt."
        )
