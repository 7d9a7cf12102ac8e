"""The names of other libraries that we rely on beyond their documented interfaces.

transformers, sentence-transformers and mteb are released weekly. A rename there fails one test
here, which names the module of ours that needs the name; without it, a score would change.
"""

from __future__ import annotations

import inspect
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

NAMES = [
    # mteb: tasks
    ("mteb.abstasks:AbsTask.filter_eval_splits", "suites: a suite's own splits"),
    ("mteb.abstasks:AbsTask.eval_splits", "judge: the splits to score"),
    (
        "mteb.abstasks.retrieval:AbsTaskRetrieval.task_specific_scores",
        "data.answers: hit rates of answers",
    ),
    ("mteb.abstasks:AbsTask._evaluate_subset", "data.answers: keeps the measures of answers"),
    ("mteb.abstasks:AbsTaskBitextMining", "judge: all its languages are encoded together"),
    ("mteb.abstasks.retrieval:AbsTaskRetrieval.ignore_identical_ids", "judge: identity"),
    ("mteb.abstasks.retrieval:AbsTaskRetrieval.k_values", "data.answers: the cutoffs"),
    ("mteb.abstasks.sts:AbsTaskSTS", "data.collection: a user's own sentence pairs"),
    ("mteb.abstasks.aggregated_task:AbsTaskAggregate", "suites: CQADupstack and its like"),
    (
        "mteb.abstasks.aggregated_task:AbsTaskAggregate.combine_task_results",
        "judge: averages the saved parts",
    ),
    (
        "mteb.abstasks.retrieval_dataset_loaders:RetrievalDatasetLoader.load",
        "data.snapshot: reads repositories as mteb reads them",
    ),
    ("mteb.timing:TimingStack", "judge: the phases in mteb's result file"),
    ("mteb.results:TaskResult.from_task_results", "judge: makes mteb's result"),
    ("mteb.results:TaskResult.from_disk", "judge: reads the parts of an aggregate"),
    # mteb: models
    ("mteb.models.model_implementations:MODEL_REGISTRY", "models: prompts and facts of models"),
    ("mteb.models.model_implementations.bm25:BM25Tokenizer", "models.bm25: mteb's own tokens"),
    (
        "mteb.models.model_implementations.qwen3_models:instruction_template",
        "encode.settings: recognises the instruction of Qwen3 embedders",
    ),
    ("mteb.models.model_meta:ScoringFunction.COSINE", "models: the similarity in model_meta"),
    ("mteb.models.model_meta:ScoringFunction.DOT_PRODUCT", "models: the similarity in model_meta"),
    ("mteb.models:ModelMeta.create_empty", "models: a model that mteb does not know"),
    ("mteb.models:ModelMeta.experiment_name", "results: names the experiments folder"),
    ("mteb.models.abs_encoder:AbsEncoder.get_prompt", "encode.prompts: mteb's choice of a prompt"),
    ("mteb.models.abs_encoder:PromptSource", "encode.prompts: where a prompt came from"),
    ("mteb.models.hybrid_wrappers:fuse_relative_score_fusion", "models.fused: mteb's fusion"),
    ("mteb.models.hybrid_wrappers:fuse_dbsf", "models.fused: mteb's fusion"),
    ("mteb.models.hybrid_wrappers:fuse_rrf", "models.fused: mteb's fusion"),
    ("mteb.models.search_wrappers:SearchEncoderWrapper", "models.foreign: mteb's own search"),
    (
        "mteb.models.sentence_transformer_wrapper:CrossEncoderWrapper",
        "rerank.cross_encoder: how mteb opens a cross-encoder",
    ),
    ("mteb.similarity_functions:cos_sim", "models.dense: mteb's similarity"),
    ("mteb.similarity_functions:dot_score", "models.dense: mteb's similarity"),
    ("mteb.similarity_functions:pairwise_cos_sim", "models.dense: mteb's similarity"),
    ("mteb.similarity_functions:pairwise_dot_score", "models.dense: mteb's similarity"),
    ("mteb.types:PromptType", "models: query or document"),
    ("mteb.cache:ResultCache.get_task_result_path", "results.store: where a result is filed"),
    ("mteb.cache:ResultCache.save_to_cache", "results.store: writes mteb's files"),
    # transformers, sentence-transformers and torch
    ("transformers:AttentionInterface.register", "runtime.segments: attention without padding"),
    ("transformers:AttentionMaskInterface.register", "runtime.segments: masks of padded batches"),
    ("transformers.masking_utils:sdpa_mask", "runtime.segments: masks of padded batches"),
    (
        "transformers.integrations.sdpa_attention:sdpa_attention_forward",
        "runtime.segments: attention of padded batches",
    ),
    (
        "transformers:PreTrainedModel.set_attn_implementation",
        "runtime.unpadded: replaces the attention",
    ),
    (
        "transformers:PreTrainedModel._supports_attention_backend",
        "runtime.unpadded: whether the attention can be replaced",
    ),
    ("transformers:PreTrainedModel._supports_flash_attn", "runtime: chooses the attention"),
    ("transformers:Gemma2Model", "rerank.layered: the layers of bge-reranker-v2.5"),
    ("transformers:LlamaModel", "rerank.layered: the layers of the MiniCPM reranker"),
    ("transformers:AutoModelForTextEncoding", "runtime: the encoder half of T5"),
    ("transformers.modeling_outputs:SequenceClassifierOutput", "rerank.fast_forward"),
    ("transformers.utils:logging.disable_progress_bar", "progress: silence while loading"),
    ("sentence_transformers:CrossEncoder", "rerank.cross_encoder"),
    # data and computation
    ("huggingface_hub:snapshot_download", "encode.locate, data.hub: local_files_only"),
    ("huggingface_hub:try_to_load_from_cache", "encode.locate: a model in the hub's cache"),
    ("huggingface_hub.constants:HF_HUB_CACHE", "data.hub: where the hub keeps its files"),
    ("huggingface_hub.errors:RevisionNotFoundError", "encode.locate: a revision that is not"),
    ("huggingface_hub.hf_api:RepoFile", "data.fetch: sizes of files"),
    ("datasets.config:HF_DATASETS_CACHE", "data.hub: `org___name` holds prepared tables"),
    ("bm25s.tokenization:STOPWORDS_EN", "models.bm25: mteb's stop words"),
    ("openvino.frontend:FrontEndManager", "runtime.from_torch: converts torch models"),
    (
        "openvino.frontend.pytorch.ts_decoder:TorchScriptPythonDecoder",
        "runtime.from_torch: converts torch models",
    ),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "needed"), NAMES, ids=[name for name, _ in NAMES])
def test_the_name_is_there(name: str, needed: str) -> None:
    module, _, path = name.partition(":")
    if module.startswith(("openvino", "bm25s")):
        pytest.importorskip(module.partition(".")[0])
    found: Any = import_module(module)
    for part in path.split("."):
        # Fields of pydantic models and annotations without a value are no attributes.
        fields = getattr(found, "__annotations__", {}) | getattr(found, "model_fields", {})
        assert hasattr(found, part) or part in fields, f"{name} is gone; needed by {needed}"
        found = getattr(found, part, None)


ARGUMENTS = [
    (
        "mteb.abstasks:AbsTask.evaluate",
        ("model", "split", "subsets_to_run", "encode_kwargs", "timer"),
    ),
    (
        "mteb.results:TaskResult.from_task_results",
        ("task", "scores", "evaluation_time", "date", "evaluation_phases"),
    ),
    ("mteb:evaluate", ("model", "tasks", "cache", "co2_tracker", "show_progress_bar")),
    ("mteb.models.hybrid_wrappers:fuse_rrf", ("rrf_k",)),
    (
        "huggingface_hub:snapshot_download",
        ("revision", "repo_type", "allow_patterns", "local_files_only"),
    ),
    ("mteb.cache:ResultCache.get_task_result_path", ("task_name", "model_name")),
]


@pytest.mark.parametrize(("name", "arguments"), ARGUMENTS, ids=[name for name, _ in ARGUMENTS])
def test_the_arguments_are_taken(name: str, arguments: tuple[str, ...]) -> None:
    module, _, path = name.partition(":")
    function: Any = import_module(module)
    for part in path.split("."):
        function = getattr(function, part)
    missing = set(arguments) - set(inspect.signature(function).parameters)
    assert not missing, f"{name} no longer takes {', '.join(sorted(missing))}"


def test_filter_eval_splits_decides_the_splits() -> None:
    """The public name sets what `eval_splits` returns, which a suite's splits rely on."""
    import mteb

    task = mteb.get_task("NFCorpus").filter_eval_splits(["test"])
    assert list(task.eval_splits) == ["test"]


def test_a_retrieval_task_keeps_its_depth_in_top_k() -> None:
    """data.answers deepens the search of its tasks through `_top_k`."""
    import mteb

    assert hasattr(mteb.get_task("SciFact"), "_top_k")


def test_registered_models_hold_their_prompts_in_loader_kwargs() -> None:
    """encode.settings takes a registered model's prompts from there."""
    from mteb.models.model_implementations import MODEL_REGISTRY

    prompts = MODEL_REGISTRY["BAAI/bge-base-en-v1.5"].loader_kwargs["model_prompts"]
    assert prompts["query"].startswith("Represent this sentence")


def test_datasets_caches_a_repository_under_three_underscores() -> None:
    """data.hub looks for ``org___name``, the folder that datasets makes of a repository."""
    from datasets import config

    source = inspect.getsource(import_module("datasets.builder"))
    assert config.HF_DATASETS_CACHE
    assert "{namespace}___{self.dataset_name}" in source


def test_gemma_and_llama_layers_have_the_parts_that_we_call() -> None:
    """rerank.layered runs Gemma 2's layers one by one, between which it averages vectors."""
    from transformers import Gemma2Config, Gemma2Model, LlamaConfig, LlamaModel

    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 8}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gemma = Gemma2Model(Gemma2Config(**sizes, head_dim=8))
        llama = LlamaModel(LlamaConfig(**sizes))
    for part in ("embed_tokens", "layers", "norm", "rotary_emb"):
        assert hasattr(gemma, part) and hasattr(llama, part)
    taken = inspect.signature(type(gemma.layers[0]).forward).parameters
    assert {"hidden_states", "attention_mask", "position_ids", "position_embeddings"} <= set(taken)
    layer = dict(llama.layers[0].named_parameters())
    assert {"self_attn.o_proj.weight", "mlp.down_proj.weight"} <= set(layer)


def test_every_text_model_s_own_key_for_its_positions_is_known() -> None:
    """`token_positions` reads the file itself, and must know what transformers would map."""
    import transformers

    from bge_eval.encode.positions import token_positions

    usual = "max_position_embeddings"
    renamed = {}
    for path in Path(transformers.__file__).parent.glob("models/*/configuration_*.py"):
        if f'"{usual}": "' in path.read_text("utf-8"):
            module = import_module(f"transformers.models.{path.parent.name}.{path.stem}")
            for config in vars(module).values():
                if isinstance(config, type) and usual in getattr(config, "attribute_map", ()):
                    renamed[config.model_type] = config.attribute_map[usual]  # type: ignore[attr-defined]
    assert renamed["gpt2"] == "n_positions"
    for no_text in ("decision_transformer", "imagegpt"):
        del renamed[no_text]
    for kind, name in renamed.items():
        assert token_positions({"model_type": kind, name: 77}) == 77, f"{kind}: {name}"
