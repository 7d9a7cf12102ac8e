"""Decoder-only, few-shot, adapted, static and foreign embedders against their references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bge_eval.encode.prompts import Role
from bge_eval.encode.settings import Overrides, Pooling, Similarity
from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.decoder import DecoderModel, Example, read_examples
from bge_eval.models.form import Form
from bge_eval.models.kinds import Loader, ModelOptions
from bge_eval.models.opening import open_model
from bge_eval.models.transformer import EncoderModel
from bge_eval.records import Vectors
from bge_eval.suites.catalogue import plan
from parity.flagembedding import FlagEmbedding, assert_close

# The peers warn while they run as references.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

TEXTS = ["A short text.", "", "中文文本也要正确处理。", "long words " * 30, "x", "Ünïcödé — “q”"]
LENGTH = 64
TASK = "Given a query, find its passage"


def byte_tokenizer(folder: Path, side: str, *, closing: bool, **said: Any) -> int:
    """Save a tokenizer whose post-processor adds the start, and the end only if asked to."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = ["<pad>", "</s>", "<s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    pieces.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if closing else "<s> $A",
        pair="<s> $A $B",
        special_tokens=[("<s>", 2), ("</s>", 1)],
    )
    names = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces, padding_side=side, model_max_length=LENGTH, **names
    )
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))
    return len(letters)


def decoder(folder: Path, kind: str, side: str, *, closing: bool = True, **said: Any) -> Path:
    """A tiny decoder-only embedder in sentence-transformers' layout: last token, normalised."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    size = byte_tokenizer(folder, side, closing=closing, **said)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=1024,
        initializer_range=0.3,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    torch.manual_seed(6)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    modules = [("0", "", "models.Transformer"), ("1", "1_Pooling", "models.Pooling")]
    modules.append(("2", "2_Normalize", "models.Normalize"))
    entries = [
        {"idx": index, "name": name, "path": path, "type": f"sentence_transformers.{kind}"}
        for index, (name, path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LENGTH}))
    for name in ("1_Pooling", "2_Normalize"):
        (folder / name).mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_lasttoken": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def by_the_model_card(folder: Path, texts: list[str]) -> Vectors:
    """One text at a time, no padding: start, tokens, end; the end's hidden state, normalised."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    for text in texts:
        body = tokenizer(text, add_special_tokens=False)["input_ids"][: LENGTH - 2]
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([[2, *body, 1]])).last_hidden_state[0, -1]
        rows.append(torch.nn.functional.normalize(out, dim=0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("kind", "closing"), [("Qwen3", True), ("Mistral", False), ("Gemma2", False)]
)
def test_last_token_models(tmp_path: Path, kind: str, closing: bool, side: str) -> None:
    """Qwen3-Embedding's tokenizer closes texts itself; e5-mistral's and gemma2's only says so."""
    said = {} if closing else {"add_eos_token": True}
    folder = decoder(tmp_path / "m", kind, side, closing=closing, **said)
    prompt = f"<instruct>{TASK}\n<query>"
    model = EncoderModel(str(folder), ModelOptions(device="cpu", batch_tokens=150))
    assert model.settings.pooling is Pooling.LAST
    for form in ("", prompt):
        expected = by_the_model_card(folder, [form + text for text in TEXTS])
        found = model.encoder.encode(TEXTS, form)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_last_token_equals_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = decoder(tmp_path / "m", "Qwen3", "left")
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, prompt="Query: ")
    found = EncoderModel(str(folder), ModelOptions(device="cpu")).encoder.encode(TEXTS, "Query: ")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_end_token_where_none_is_asked_for(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "m", "Mistral", "left", closing=False)
    ids = EncoderModel(str(folder), ModelOptions(device="cpu")).encoder.tokenizer("a")["input_ids"]
    assert ids[0] == 2 and ids[-1] != 1


def test_instruction_format(tmp_path: Path) -> None:
    """bge-multilingual-gemma2's, which mteb's registry does not have."""
    place = "models--BAAI--bge-multilingual-gemma2/snapshots/" + "a" * 40
    known = EncoderModel(str(decoder(tmp_path / place, "Gemma2", "left")))
    named = EncoderModel(
        str(decoder(tmp_path / "own", "Gemma2", "left")),
        ModelOptions(overrides=Overrides(instruction_format=r"<instruct>{instruction}\n<query>")),
    )
    metadata = plan(["SciFact"])[0].task.metadata
    for model in (known, named):
        prompts = model.identity(metadata)["prompts"]
        assert prompts["query"].startswith("<instruct>Given a scientific claim")
        assert prompts["query"].endswith("\n<query>") and prompts["document"] == ""
    assert "instruction_format" in (named.mteb_model_meta.experiment_kwargs or {})
    with pytest.raises(UsageError, match="once"):
        EncoderModel(
            str(tmp_path / "own"),
            ModelOptions(overrides=Overrides(instruction_format="Instruct: {task}")),
        )


# ── in-context examples ─────────────────────────────────────────────────────────────────────

EXAMPLES = [
    Example("what is a bee", "An insect that makes honey.", "Answer the question"),
    Example("蜜蜂", "一种昆虫。"),
]


def shown(folder: Path, examples: list[Example]) -> DecoderModel:
    return DecoderModel(
        str(folder),
        ModelOptions(
            device="cpu",
            batch_tokens=500,
            overrides=Overrides(instruction_format="<instruct>{instruction}\n<query>"),
        ),
        examples={"": tuple(examples)},
    )


@pytest.mark.slow
@pytest.mark.parametrize("examples", [[], EXAMPLES])
def test_examples_equal_flag_embedding(
    tmp_path: Path, flagembedding: FlagEmbedding, examples: list[Example]
) -> None:
    folder = decoder(tmp_path / "bge-en-icl", "Mistral", "left", add_eos_token=True)
    written = [
        {"query": e.query, "response": e.response, "instruct": e.instruct or TASK} for e in examples
    ]
    expected = flagembedding(
        "in_context",
        folder,
        texts=TEXTS,
        max_length=LENGTH,
        instruction=TASK,
        examples=written,
    )
    model = shown(folder, examples)
    metadata = plan(["SciFact"])[0].task.metadata
    model.task_prompts["SciFact"] = {"query": f"<instruct>{TASK}\n<query>"}
    queries = model._encode(TEXTS, model.form(metadata, Role.QUERY), "encode queries")
    assert_close(queries, expected["queries"])
    passages = model._encode(TEXTS, model.form(metadata, Role.DOCUMENT), "encode corpus")
    assert_close(passages, expected["passages"])
    assert model.encoder.settings.max_length == LENGTH, "the longer limit is for queries alone"


def test_the_form_is_the_text_around_a_query(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "m", "Mistral", "left")
    model = shown(folder, EXAMPLES)
    metadata = plan(["SciFact"])[0].task.metadata
    model.task_prompts["SciFact"] = {"query": "<instruct>Find it\n<query>"}
    form = model.form(metadata, Role.QUERY)
    assert form.prompt == "<instruct>Find it\n<query>" and form.examples.count("<response>") == 2
    assert model.form(metadata, Role.DOCUMENT) == Form()
    literal = f"{form.examples}{form.prompt}a query\n<response>"
    longer = EncoderModel(
        str(folder), ModelOptions(device="cpu", overrides=Overrides(max_length=form.max_length))
    )
    np.testing.assert_allclose(
        model._encode(["a query"], form, "encode queries"),
        longer.encoder.encode([literal]),
        atol=1e-6,
    )
    passages = model._encode(TEXTS, Form(), "encode corpus")
    plain = EncoderModel(str(folder), ModelOptions(device="cpu", store=False))
    np.testing.assert_allclose(passages, plain.encoder.encode(TEXTS), atol=1e-6)


def test_examples_file(tmp_path: Path) -> None:
    path = tmp_path / "examples.json"
    path.write_text(json.dumps([{"query": "a", "response": "b"}]))
    assert read_examples(path) == {"": (Example("a", "b"),)}
    path.write_text(json.dumps({"SciFact": [{"query": "a", "response": "b", "instruct": "c"}]}))
    assert read_examples(path) == {"SciFact": (Example("a", "b", "c"),)}
    for content in ('[{"query": "a"}]', '[{"query": "a", "response": 1}]', '{"SciFact": "x"}'):
        path.write_text(content)
        with pytest.raises(DamagedError, match="example 1"):
            read_examples(path)
    path.write_text("[")
    with pytest.raises(DamagedError, match="not JSON"):
        read_examples(path)
    with pytest.raises(MissingError):
        read_examples(tmp_path / "none.json")


def test_examples_are_part_of_the_identity(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "m", "Mistral", "left")
    metadata = plan(["SciFact"])[0].task.metadata
    one, two = shown(folder, EXAMPLES), shown(folder, EXAMPLES[:1])
    assert one.identity(metadata) != two.identity(metadata)
    assert one.mteb_model_meta.experiment_kwargs != two.mteb_model_meta.experiment_kwargs
    with pytest.raises(UsageError, match="--instruction-format"):
        DecoderModel(str(folder), examples={"": tuple(EXAMPLES)})


# ── adapters ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("headed", [False, True])
def test_adapter_equals_peft(tmp_path: Path, headed: bool) -> None:
    """Trained on the bare model or on the one with a language head, as most LoRA scripts do."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModel, AutoModelForCausalLM

    folder = decoder(tmp_path / "m", "Qwen3", "left")
    auto = AutoModelForCausalLM if headed else AutoModel
    torch.manual_seed(8)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    adapted: Any = get_peft_model(auto.from_pretrained(folder), config)
    adapted.save_pretrained(str(tmp_path / "lora"))
    reference: Any = PeftModel.from_pretrained(
        auto.from_pretrained(folder), tmp_path / "lora"
    ).eval()
    body = reference.base_model.model.model if headed else reference
    model = DecoderModel(str(folder), ModelOptions(adapter=tmp_path / "lora", device="cpu"))
    found = model.encoder.encode(TEXTS)
    tokenizer = model.encoder.tokenizer
    for text, vector in zip(TEXTS, found, strict=True):
        ids = tokenizer(text, truncation=True, max_length=LENGTH, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            hidden = body(input_ids=ids).last_hidden_state[0, -1]
        expected = torch.nn.functional.normalize(hidden, dim=0)
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    plain = EncoderModel(str(folder), ModelOptions(device="cpu")).encoder.encode(TEXTS)
    assert not np.allclose(found, plain, atol=1e-3)
    metadata = plan(["SciFact"])[0].task.metadata
    assert model.identity(metadata)["adapter"]["name"] == "lora"
    assert "adapter" in (model.mteb_model_meta.experiment_kwargs or {})


@pytest.mark.parametrize(
    "overrides", [{"truncate_dim": 8}, {"normalize": False}, {"similarity": Similarity.DOT}]
)
def test_stored_vectors_of_an_adapter_serve_other_settings(
    tmp_path: Path, overrides: dict[str, Any]
) -> None:
    """What is done with a vector after the model is not in its key."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    folder = decoder(tmp_path / "m", "Qwen3", "left")
    torch.manual_seed(8)
    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(AutoModel.from_pretrained(folder), config).save_pretrained(
        str(tmp_path / "lora")
    )

    def model(store: Path | bool, **changed: Any) -> DecoderModel:
        said = Overrides(**changed)
        return DecoderModel(
            str(folder),
            ModelOptions(adapter=tmp_path / "lora", device="cpu", store=store, overrides=said),
        )

    first = model(tmp_path / "store")
    first._encode(TEXTS, Form(), "encode")
    first.flush()
    other = model(tmp_path / "store", **overrides)
    stored = other._encode(TEXTS, Form(), "encode")
    assert "backend" not in other.machine_settings(), "no weights were loaded"
    fresh = model(False, **overrides)._encode(TEXTS, Form(), "encode")
    np.testing.assert_allclose(stored, fresh, atol=1e-6)
    plain = EncoderModel(str(folder), ModelOptions(device="cpu", store=tmp_path / "store"))
    plain._encode(TEXTS, Form(), "encode")
    assert "backend" in plain.machine_settings(), "the adapter's vectors are not the plain model's"


def test_adapter_of_another_model(tmp_path: Path, tiny_bge: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    config = LoraConfig(r=4, target_modules=["query"])
    get_peft_model(AutoModel.from_pretrained(tiny_bge), config).save_pretrained(
        str(tmp_path / "lora")
    )
    folder = decoder(tmp_path / "m", "Qwen3", "left")
    with pytest.raises(DamagedError, match="adapter"):
        _ = DecoderModel(str(folder), ModelOptions(adapter=tmp_path / "lora", device="cpu")).encoder
    with pytest.raises(MissingError, match=r"adapter_config\.json"):
        DecoderModel(str(folder), ModelOptions(adapter=folder, device="cpu"))


# ── what others run ─────────────────────────────────────────────────────────────────────────


def encoded(model: Any, texts: list[str], role: str | None = None) -> Vectors:
    from datasets import Dataset
    from mteb.types import PromptType
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(Dataset.from_dict({"text": texts}), batch_size=2)
    found: Vectors = model.encode(
        loader,
        task_metadata=plan(["SciFact"])[0].task.metadata,
        prompt_type=PromptType(role) if role else None,
        hf_split="test",
        hf_subset="default",
    )
    return found


def test_model2vec(tmp_path: Path, minilm_folder: Path) -> None:
    """With sentence-transformers' files as mteb runs it, without them as model2vec does."""
    from model2vec import StaticModel
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm_folder / "tokenizer.json"))
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(tokenizer.get_vocab_size(), 16)).astype(np.float32)
    static = StaticModel(vectors, tokenizer, normalize=True)
    static.save_pretrained(tmp_path / "potion")
    model = open_model(str(tmp_path / "potion"), ModelOptions())
    reference = SentenceTransformer(str(tmp_path / "potion"), device="cpu")
    np.testing.assert_allclose(encoded(model, TEXTS), reference.encode(TEXTS), atol=1e-5)
    (tmp_path / "potion" / "modules.json").unlink()
    model = open_model(str(tmp_path / "potion"), ModelOptions())
    expected = StaticModel.from_pretrained(str(tmp_path / "potion")).encode(TEXTS)
    np.testing.assert_allclose(encoded(model, TEXTS), expected, atol=1e-5)
    report = evaluate(model, plan(["demo"]), Options(tmp_path / "out", offline=True))
    assert len(report.done["BgeEvalDemo"]) == 1
    with pytest.raises(UsageError, match="--pooling cannot be used"):
        open_model(str(tmp_path / "potion"), ModelOptions(overrides=Overrides(pooling=Pooling.CLS)))


def test_static_embedding_of_sentence_transformers(tmp_path: Path, minilm_folder: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm_folder / "tokenizer.json"))
    reference = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)])
    reference.save(str(tmp_path / "static"))
    model = open_model(str(tmp_path / "static"), ModelOptions())
    np.testing.assert_allclose(encoded(model, TEXTS), reference.encode(TEXTS), atol=1e-5)


MODULE = """
import numpy as np

class Encoder:
    def encode(self, texts):
        return np.array([[len(text), text.count(" "), 1.0] for text in texts])

class Roles(Encoder):
    def encode_queries(self, texts):
        return -self.encode(texts)

class Wrong:
    def encode(self, texts):
        return np.ones((len(texts) + 1, 3))

class Infinite:
    def encode(self, texts):
        return np.full((len(texts), 3), np.inf)

nothing = object
"""


def test_any_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    model = open_model("my_models:Encoder", ModelOptions())
    assert encoded(model, ["a b", ""]).tolist() == [[3, 1, 1], [0, 0, 1]]
    report = evaluate(model, plan(["demo"]), Options(tmp_path / "out", offline=True))
    assert not report.failed and "my_models__Encoder" in str(report.done["BgeEvalDemo"][0])
    roles = open_model("my_models:Roles", ModelOptions())
    assert encoded(roles, ["a b"], "query").tolist() == [[-3, -1, -1]]
    assert encoded(roles, ["a b"], "document").tolist() == [[3, 1, 1]]
    for name, message in (("Wrong", "shape"), ("Infinite", "finite")):
        with pytest.raises(DamagedError, match=message):
            encoded(open_model(f"my_models:{name}", ModelOptions()), ["a"])
    with pytest.raises(UsageError, match="has no encode"):
        encoded(open_model("my_models:nothing", ModelOptions()), ["a"])
    with pytest.raises(UsageError, match="no function 'Missing'"):
        open_model("my_models:Missing", ModelOptions())
    with pytest.raises(MissingError, match="cannot be imported"):
        open_model("no_such_module:Encoder", ModelOptions())


def test_mteb_loader(tmp_path: Path) -> None:
    """mteb's own object under our evaluation gives mteb's own scores."""
    import mteb

    name = "mteb/baseline-random-encoder"
    model = open_model(name, ModelOptions(loader=Loader.MTEB))
    report = evaluate(model, plan(["demo"]), Options(tmp_path, offline=True))
    ours = mteb.TaskResult.from_disk(report.done["BgeEvalDemo"][0])
    from bge_eval.data.finding import find_source
    from bge_eval.progress import Progress

    planned = plan(["demo"])[0]
    assert planned.shipped is not None
    with find_source(planned.task, [planned.shipped.parent], ["demo"]).loaded(
        planned.task, Progress()
    ):
        theirs = mteb.evaluate(mteb.get_model(name), planned.task, cache=None).task_results[0]
    key = "ndcg_at_10"
    assert ours.scores["test"][0][key] == pytest.approx(theirs.scores["test"][0][key], abs=1e-5)
    with pytest.raises(UsageError, match="has no loader for BAAI/bge-base"):
        open_model("BAAI/bge-base", ModelOptions(loader=Loader.MTEB))
