"""Every text model of mteb's registry: run as mteb's own loader runs it, or refused by name.

mteb's loaders run for real, with the files of a tiny encoder in place of the model's. No weights of
the models themselves are needed: prompts, lengths, dimensions and normalisation do not depend on
them.
"""

from __future__ import annotations

import os
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import mteb
import pytest
from mteb.models.model_implementations import MODEL_REGISTRY

from bge_eval.encode.checkpoints import Run, checkpoint
from bge_eval.encode.prompts import Role
from bge_eval.encode.protocol import ProtocolName
from bge_eval.encode.registry import PLAIN_LOADERS, refuse_other_loader, registry_entry
from bge_eval.encode.settings import Overrides
from bge_eval.errors import UsageError
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from mteb_prompts import encoded_prompt

pytestmark = pytest.mark.filterwarnings("ignore")  # mteb warns of prompts that it ignores

TASKS = (
    *("SciFact", "ArguAna", "AskUbuntuDupQuestions", "STS12", "Banking77Classification"),
    *("TwentyNewsgroupsClustering", "SprintDuplicateQuestions", "CmedqaRetrieval"),
)
WITH_ROLES = ("Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking")
BROKEN = {"Sailesh97/Hinvec"}
"""Entries whose options mteb's own loader refuses."""


BY_MODEL_CARD = {"BAAI/bge-en-icl", "BAAI/bge-multilingual-gemma2"}
"""Models that mteb's registry has no instructions for, and their model cards have."""


def loader_name(meta: Any) -> str | None:
    return getattr(getattr(meta.loader, "func", meta.loader), "__name__", None)


TEXT = {name: meta for name, meta in MODEL_REGISTRY.items() if meta.modalities == ["text"]}
PLAIN = {
    name: meta
    for name, meta in MODEL_REGISTRY.items()
    if "text" in meta.modalities and loader_name(meta) in PLAIN_LOADERS
}


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """An encoder of 8 dimensions with positions for the longest input of the registry."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("roomy")
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder, model_max_length=512)
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=140_000,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder / "body")
    tokenizer.save_pretrained(folder / "body")
    body = Transformer(str(folder / "body"), max_seq_length=512)
    model = SentenceTransformer(modules=[body, Pooling(8, "mean"), Normalize()])
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


@pytest.fixture
def named(roomy: Path, tmp_path: Path) -> Any:
    """Put the encoder's files under a model's name, as in a local copy of its repository."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(roomy, tmp_path / name, copy_function=os.link))

    return copy


@cache
def metadata(task: str) -> Any:
    return mteb.get_task(task).metadata


def tasks_of(meta: Any) -> list[Any]:
    """The usual tasks, and some that the entry itself names."""
    options = meta.loader_kwargs
    named = {**(options.get("model_prompts") or {}), **(options.get("prompts_dict") or {})}
    tasks = [metadata(name) for name in TASKS]
    own = 0
    for name in named:
        try:
            tasks.append(metadata(name.rsplit("-", 1)[0]))
        except KeyError:  # a task type or role
            continue
        own += 1
        if own == 6:
            break
    return tasks


def reference(name: str, folder: Path) -> Any:
    """Load the encoder with mteb's own loader and the options of a model's entry."""
    meta = MODEL_REGISTRY[name]
    options = {key: value for key, value in meta.loader_kwargs.items() if key != "model_kwargs"}
    loader: Any = meta.loader
    return loader(str(folder), revision=None, **{**options, "device": "cpu"})


def options(name: str) -> ModelOptions:
    protocol = ProtocolName.MODEL_FILES if name in BY_MODEL_CARD else None
    entry = checkpoint(name)
    known_as = name if entry is not None and entry.run is Run.OPTIONS else None
    return ModelOptions(overrides=Overrides(protocol=protocol, known_as=known_as))


def alike() -> list[list[str]]:
    """The models, grouped by loader and options: one of a group stands for all in mteb's loader."""
    groups: dict[str, list[str]] = {}
    for name, meta in PLAIN.items():
        if name not in BROKEN:
            groups.setdefault(f"{loader_name(meta)} {meta.loader_kwargs!r}", []).append(name)
    return list(groups.values())


@pytest.mark.parametrize("names", alike(), ids=lambda names: names[0])
def test_as_mtebs_loader(names: list[str], named: Any) -> None:
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    theirs = reference(names[0], named("reference/model"))
    tasks = tasks_of(MODEL_REGISTRY[names[0]])
    models = {name: EncoderModel(str(named(name)), options(name)) for name in names}
    for name, model in models.items():
        settings = model.settings
        assert settings.max_length == theirs.model.max_seq_length, name
        assert settings.truncate_dim == theirs.model.truncate_dim, name
        pooling = next(module for module in theirs.model if isinstance(module, Pooling))
        assert settings.pool_prompt is bool(pooling.include_prompt), name
        assert settings.normalize is any(isinstance(part, Normalize) for part in theirs.model)
        assert settings.tokenizer.get("padding_side", theirs.model.tokenizer.padding_side) == (
            theirs.model.tokenizer.padding_side
        )
    for task in tasks:
        for role in tuple(Role) if task.type in WITH_ROLES else (None,):
            expected = encoded_prompt(theirs, task, role)
            for name, model in models.items():
                assert model.prompt(task, role) == expected, (name, task.name, role)


def test_groups_cover_the_registry() -> None:
    covered = {name for names in alike() for name in names}
    assert covered | BROKEN == set(PLAIN)
    assert len(covered) > 400


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_options_that_mtebs_loader_refuses(name: str, named: Any) -> None:
    folder = named(name)
    with pytest.raises(TypeError, match="unexpected keyword"):
        reference(name, folder)
    with pytest.raises(UsageError, match="nothing states how its texts are prompted"):
        EncoderModel(str(folder))


def test_every_other_text_model_is_refused_by_name() -> None:
    """None runs without the instructions that its own loader would write."""
    for name in TEXT.keys() - PLAIN.keys():
        if (loader := loader_name(TEXT[name])) is not None:
            with pytest.raises(UsageError, match=re.escape(f"mteb runs {name} ") + f".*{loader}"):
                refuse_other_loader(name, registry_entry(name))


def test_every_option_of_the_registry_is_known() -> None:
    unread = {name for name in PLAIN if (entry := registry_entry(name)) and entry.unread}
    assert unread == BROKEN
