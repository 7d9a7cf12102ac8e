"""From the options of ``bge-eval run`` to the records that the rooms below take."""

from __future__ import annotations

from bge_eval.cli.options.data import DataFlags
from bge_eval.cli.options.machine import MachineFlags
from bge_eval.cli.options.model import ModelFlags
from bge_eval.cli.options.reranker import RerankerFlags
from bge_eval.cli.options.served import ApiFlags
from bge_eval.encode.prompts import read_prompts
from bge_eval.encode.protocol import ProtocolName
from bge_eval.encode.settings import Overrides
from bge_eval.evaluation.options import Options
from bge_eval.models.kinds import ModelOptions
from bge_eval.remote.client import Limits
from bge_eval.rerank.families import RerankerOptions


def model_options(
    model: ModelFlags, server: ApiFlags, machine: MachineFlags, *, offline: bool
) -> ModelOptions:
    """Return the record that opens each of the models."""
    return ModelOptions(
        model.revision,
        overrides(model),
        device=machine.device,
        batch_tokens=machine.batch_tokens,
        backend=machine.backend,
        store=machine.store_folder,
        trust_remote_code=model.trust_remote_code,
        offline=offline,
        api=server.api,
        api_model=server.api_model,
        limits=limits(server),
        m3_mode=model.family.m3_mode,
        m3_weights=model.family.m3_weights,
        examples=model.family.examples,
        adapter=model.family.adapter,
        loader=model.family.loader,
        index=model.searching.options,
        shared=len(model.names) > 1,
    )


def overrides(model: ModelFlags) -> Overrides:
    """Return the settings and prompts that replace the model's own."""
    settings, prompting = model.settings, model.prompting
    return Overrides(
        pooling=settings.pooling,
        normalize=settings.normalize,
        max_length=settings.max_length,
        similarity=settings.similarity,
        dtype=settings.dtype,
        calibration=settings.calibration,
        truncate_dim=settings.truncate_dim,
        query_prompt=prompting.query_prompt,
        document_prompt=prompting.document_prompt,
        instruction_format=model.family.instruction_format,
        prompts=read_prompts(prompting.prompts) if prompting.prompts else None,
        protocol=prompting.protocol,
        known_as=model.family.known_as,
    )


def limits(server: ApiFlags) -> Limits:
    """Return how many requests a server gets at once, and how long each may take."""
    usual = Limits()
    return Limits(
        concurrency=server.api_concurrency or usual.concurrency,
        timeout=server.api_timeout or usual.timeout,
    )


def reranker_options(
    reranker: RerankerFlags, model: ModelFlags, machine: MachineFlags
) -> RerankerOptions:
    """Return the record that opens a reranker; precision and code are those of the model."""
    return RerankerOptions(
        dtype=str(model.settings.dtype),
        calibration=model.settings.calibration,
        kind=reranker.reranker_kind,
        max_length=reranker.reranker_max_length,
        layers=reranker.reranker_layers,
        compress_ratio=reranker.reranker_compress,
        compress_layers=reranker.compress_layers,
        device=machine.device,
        batch_tokens=machine.batch_tokens,
        trust_remote_code=model.trust_remote_code,
        backend=str(machine.backend),
        protocol=model.prompting.protocol or ProtocolName.LEADERBOARD,
    )


def evaluate_options(data: DataFlags, reranker: RerankerFlags) -> Options:
    """Return the record of one evaluation: data folders, output folder, reuse."""
    return Options(
        output=data.output,
        data_dirs=tuple(data.data_dir or ()),
        offline=data.offline,
        overwrite=data.overwrite,
        fail_fast=data.fail_fast,
        dangling=data.allow_dangling_qrels,
        other_data=data.allow_other_data,
        available=data.available,
        rerank_top_k=reranker.depth,
    )
