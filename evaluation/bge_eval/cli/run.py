"""``bge-eval run``: evaluate, save, print the table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.quiet import prepare
from bge_eval.cli.show import Form
from bge_eval.encode.protocol import ProtocolName
from bge_eval.encode.settings import Dtype, Overrides, Pooling, Similarity

if TYPE_CHECKING:
    from bge_eval.encode.adapter import EncoderModel
    from bge_eval.progress import Progress
    from bge_eval.rerank.cross_encoder import CrossEncoderReranker
    from bge_eval.suites import PlannedTask

DEFAULT_OUTPUT = Path("results/runs")

_MODEL, _STAGE, _DATA, _MACHINE = "Model", "Second stage", "Data and results", "Machine"


def run(  # one parameter for each option of the command
    model: Annotated[
        str,
        typer.Option(
            help="Hub id (BAAI/bge-base-en-v1.5), local folder, or builtin:all-MiniLM-L6-v2.",
            rich_help_panel=_MODEL,
        ),
    ],
    tasks: Annotated[
        list[str],
        typer.Option(help="Suites (beir, demo) and tasks (SciFact); repeat, or list after it."),
    ],
    more_tasks: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="TASKS")] = None,
    subset: Annotated[
        list[str] | None,
        typer.Option(help="Only these subsets (languages) of tasks that have several; repeat."),
    ] = None,
    lang: Annotated[
        list[str] | None,
        typer.Option(help="Only tasks and subsets of these languages (eng, zho, de); repeat."),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(help="Branch, tag or commit of a hub model.", rich_help_panel=_MODEL),
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
            help="float32 reproduces published figures; the others are faster.",
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
    reranker: Annotated[
        str | None,
        typer.Option(
            help="A cross-encoder that re-orders the first documents.", rich_help_panel=_STAGE
        ),
    ] = None,
    rerank_top_k: Annotated[
        int,
        typer.Option(min=1, max=1000, help="How many it re-orders.", rich_help_panel=_STAGE),
    ] = 100,
    data_dir: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of datasets in the BEIR layout (<dir>/SciFact/corpus.jsonl …); repeat.",
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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr.")] = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda, cuda:1, mps. Default: a GPU if there is one.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    batch_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens of a batch. Default: by device.", rich_help_panel=_MACHINE
        ),
    ] = None,
) -> None:
    """Evaluate a model on tasks, save the results, print the table.

    Examples:
      bge-eval run --model BAAI/bge-base-en-v1.5 --tasks beir

      bge-eval run --model ./my-model --tasks SciFact --data-dir ./datasets --offline

      bge-eval run --model builtin:all-MiniLM-L6-v2 --tasks demo --dtype bfloat16
    """
    prepare(offline=offline)
    from bge_eval.cli.console import TerminalProgress, stdout
    from bge_eval.cli.show import show
    from bge_eval.leaderboard import leaderboard
    from bge_eval.measure import mteb_key, parse_measure

    measure = None if metric == "main" else parse_measure(metric)
    progress = TerminalProgress(quiet=quiet)
    progress.note("Loading mteb and torch …")

    from bge_eval.encode.adapter import EncoderModel
    from bge_eval.encode.prompts import read_prompts
    from bge_eval.evaluate import Options, evaluate
    from bge_eval.suites import plan, suites

    names = [name for item in [*tasks, *(more_tasks or [])] for name in item.split(",") if name]
    planned = plan(names, subset or [], lang or [])
    encoder = EncoderModel(
        model,
        revision,
        device=device,
        overrides=Overrides(
            pooling=pooling,
            normalize=normalize,
            max_length=max_length,
            similarity=similarity,
            dtype=dtype,
            truncate_dim=truncate_dim,
            query_prompt=query_prompt,
            document_prompt=document_prompt,
            prompts=read_prompts(prompts) if prompts else None,
            protocol=protocol,
        ),
        batch_tokens=batch_tokens,
        trust_remote_code=trust_remote_code,
        offline=offline,
        progress=progress,
    )
    _introduce(encoder, progress)
    second = (
        _reranker(reranker, dtype, device, trust_remote_code, offline, progress)
        if reranker
        else None
    )
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
    report = evaluate(encoder, planned, options, reranker=second, progress=progress)
    paths = [path for found in report.done.values() for path in found]
    if paths:
        title = names[0] if len(names) == 1 and names[0] in suites() else ""
        board = leaderboard(
            paths,
            measure=str(measure or _main_measure(planned)),
            key=mteb_key(measure) if measure else "main_score",
            tasks=[task.name for task in planned],
            title=title,
        )
        show(board, form, stdout)
        progress.note(f"Results are in {output}.")
    if report.failed:
        worst = max(error.exit_code for error in report.failed.values())
        for name, error in report.failed.items():
            typer.echo(f"Error: {name} was not evaluated. {error}", err=True)
        raise typer.Exit(worst)


def _main_measure(planned: list[PlannedTask]) -> str:
    """Name the main measure of some tasks, if they share it."""
    mains = {task.task.metadata.main_score for task in planned}
    return "nDCG@10" if mains == {"ndcg_at_10"} else "main score"


def _introduce(encoder: EncoderModel, progress: Progress) -> None:
    """Say how the model will be run, since every one of these decides the score."""
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


def _reranker(
    name: str,
    dtype: Dtype,
    device: str | None,
    trust_remote_code: bool,
    offline: bool,
    progress: Progress,
) -> CrossEncoderReranker:
    from bge_eval.encode.locate import locate
    from bge_eval.rerank.cross_encoder import CrossEncoderReranker

    return CrossEncoderReranker(
        locate(name, offline=offline),
        dtype=str(dtype),
        device=device,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
