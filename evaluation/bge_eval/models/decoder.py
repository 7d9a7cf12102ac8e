"""Embedders made from language models: in-context examples and PEFT adapters.

bge-en-icl reads examples before the query and an open answer after it, as FlagEmbedding writes
them::

    <instruct>task
    <query>an example query
    <response>its passage

    <instruct>task
    <query>the query
    <response>

A query with an instruction gets this form; a passage, which has none, stays as it is. The maximum
length limits instruction and query; examples come on top.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.encode.copies import known_name
from bge_eval.encode.locate import content_revision
from bge_eval.encode.settings import Backend, Dtype
from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.models.form import Form
from bge_eval.models.kinds import ENCODER_OPTIONS, Kind, ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.runtime.adapter import merged
from bge_eval.runtime.devices import first_device
from bge_eval.runtime.text_encoder import TextEncoder

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

    from bge_eval.encode.prompts import Role

_SUFFIX = "\n<response>"
_WITH_EXAMPLES = "BAAI/bge-en-icl"
"""The model whose queries have the form of examples even without any."""


@dataclass(frozen=True, slots=True)
class Example:
    """One query with the passage that answers it."""

    query: str
    """The query."""
    response: str
    """The passage."""
    instruct: str | None = None
    """Its instruction; None takes that of the query's task."""


def read_examples(path: Path) -> dict[str, tuple[Example, ...]]:
    """Read a JSON file of examples: a list for all tasks, or lists by task name.

    Each example is ``{"query": "…", "response": "…"}``, with ``"instruct"`` if it has an
    instruction of its own.

    Returns:
        Task name → examples; "" → those of all other tasks.

    Raises:
        MissingError: there is no such file.
        DamagedError: it is not JSON, or an example lacks query or response.
    """
    if not path.is_file():
        raise MissingError(f"--examples {path}: there is no such file.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is not JSON ({error}).") from error
    by_task = content if isinstance(content, dict) else {"": content}
    known = {"query", "response", "instruct"}
    examples: dict[str, tuple[Example, ...]] = {}
    for task, items in by_task.items():
        for number, item in enumerate(items if isinstance(items, list) else [items], start=1):
            whole = isinstance(item, dict) and {"query", "response"} <= item.keys() <= known
            if not whole or not all(isinstance(value, str) for value in item.values()):
                place = f"{task}, example {number}" if task else f"example {number}"
                raise DamagedError(
                    f'{path}, {place}: an example is {{"query": "…", "response": "…"}}, with'
                    ' "instruct" if it has an instruction of its own.'
                )
        examples[task] = tuple(Example(**item) for item in items)
    return examples


class DecoderModel(EncoderModel):
    """An embedder with in-context examples, a PEFT adapter, or both."""

    def __init__(
        self,
        model_name: str,
        options: ModelOptions | None = None,
        *,
        examples: Mapping[str, Sequence[Example]] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Find the model and read its settings.

        Args:
            model_name: hub id or local folder.
            options: as of `EncoderModel`; the adapter is merged into the weights.
            examples: task name → examples, "" → those of all others; None for plain queries.
            progress: reports encoding and searching.

        Raises:
            MissingError: the adapter is not there.
            UsageError: the model gets no instructions, which examples are written with.
        """
        options = options or ModelOptions()
        self._examples = examples
        self._adapter: Path | None = None
        self._adapter_revision = ""
        if options.adapter is not None:
            self._adapter = _adapter_folder(options.adapter)
            self._adapter_revision = content_revision(self._adapter)
            if options.backend not in (Backend.AUTO, Backend.TORCH):
                raise UsageError(
                    f"--adapter runs with torch, not with --backend {options.backend}."
                )
            device = first_device(options.device)
            options = replace(options, backend=Backend.TORCH, device=device)
        super().__init__(model_name, options, progress=progress)
        if examples is not None and self.prompts.instructions is None:
            raise UsageError(
                f"{self.files.name} gets no task instructions, which examples are written with."
                " Add --instruction-format '<instruct>{instruction}\\n<query>' if it was trained as"
                " bge-en-icl was."
            )

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the packages of the encoder, and the one that merges the adapter."""
        return (*super().packages, *(("peft",) if self._adapter else ()))

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return everything about this model that the scores of one task depend on."""
        identity = super().identity(task)
        if self._examples is not None:
            identity["examples"] = [
                [example.instruct, example.query, example.response]
                for example in self._examples_of(task.name)
            ]
        if self._adapter is not None:
            identity["adapter"] = {"name": self._adapter.name, "revision": self._adapter_revision}
        return identity

    def _experiment(self) -> dict[str, str | int | bool]:
        experiment = super()._experiment()
        if self._examples:
            content = repr(sorted(self._examples.items()))
            experiment["examples"] = hashlib.sha256(content.encode()).hexdigest()[:8]
        if self._adapter is not None:
            experiment["adapter"] = f"{self._adapter.name}@{self._adapter_revision[:8]}"
        return experiment

    @property
    def encoder(self) -> TextEncoder:
        """Return the loaded encoder, with the adapter merged into its weights."""
        loaded = self._encoder is not None
        encoder = super().encoder
        if not loaded and self._adapter is not None and self.workers is None:
            forward: Any = encoder.forward
            if not hasattr(forward, "model") or self.settings.dtype is Dtype.INT8_DYNAMIC:
                raise UsageError("--adapter runs on one device and not in int8.")
            forward.model = merged(forward.model, self._adapter).to(forward.device).eval()
        return encoder

    def form(self, task: TaskMetadata, role: Role | None) -> Form:
        """Return the prompt, and around an instructed query the examples and the open answer."""
        plain = super().form(task, role)
        if self._examples is None or not plain.prompt:
            return plain
        examples = "".join(
            f"{self._instruction(example.instruct, plain.prompt)}{example.query}{_SUFFIX}"
            f"{example.response}\n\n"
            for example in self._examples_of(task.name)
        )
        needed = self._tokens(examples) + self._tokens(_SUFFIX) + self.settings.max_length
        return Form(plain.prompt, examples, _SUFFIX, (needed + 8) // 8 * 8 + 8)

    def _inputs(self, texts: list[str], form: Form) -> tuple[list[str], str]:
        """Cut prompt and text to the model's length, and put examples and closing around them."""
        if not form.closing:
            return super()._inputs(texts, form)
        tokenizer: Any = self.encoder.tokenizer
        limit = self.settings.max_length
        closing = f"{form.closing}{tokenizer.eos_token or ''}"
        room = limit - self._tokens(tokenizer.bos_token or "") - self._tokens(closing)
        if room < 1:
            raise UsageError(f"--max-length {limit} leaves no room for a query.")
        cut = tokenizer(
            [form.prompt + text for text in texts],
            add_special_tokens=False,
            truncation=True,
            max_length=room,
        )["input_ids"]
        return [form.examples + text + form.closing for text in tokenizer.batch_decode(cut)], ""

    def _encoder_of(self, form: Form) -> TextEncoder:
        """Return the encoder with the length that the form needs."""
        encoder = self.encoder
        if form.max_length is None:
            return encoder
        return TextEncoder(
            encoder.tokenizer,
            encoder.forward,
            replace(encoder.settings, max_length=form.max_length),
            batch_tokens=encoder.batch_tokens,
            progress=self.progress,
        )

    def _own_facts(self, form: Form) -> dict[str, str]:
        """Return the adapter's revision and the length beside the examples, where there are any."""
        facts = {"adapter": self._adapter_revision} if self._adapter is not None else {}
        if form.closing:
            facts["form"] = f"{self.settings.max_length} tokens beside examples"
        return facts

    def _examples_of(self, task: str) -> Sequence[Example]:
        examples = self._examples or {}
        return examples.get(task, examples.get("", ()))

    def _tokens(self, text: str) -> int:
        """Return the length of a text in tokens, without special tokens."""
        tokenizer: Any = self.encoder.tokenizer
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    def _instruction(self, own: str | None, prompt: str) -> str:
        if own is None:
            return prompt
        instructions = self.prompts.instructions
        assert instructions is not None
        return instructions.formatted(own)


def _adapter_folder(adapter: Path) -> Path:
    """Return the folder of a PEFT adapter.

    Raises:
        MissingError: it has no ``adapter_config.json``.
    """
    folder = adapter.expanduser().resolve()
    if not (folder / "adapter_config.json").is_file():
        raise MissingError(
            f"--adapter {adapter}: a PEFT adapter's folder has an adapter_config.json; this one"
            " has none."
        )
    return folder


def is_decoder(name: str, options: ModelOptions) -> bool:
    """Return whether a model takes examples or an adapter."""
    has_options = options.examples is not None or options.adapter is not None
    return has_options or known_name(name, options.overrides.known_as) == _WITH_EXAMPLES


def open_decoder(name: str, options: ModelOptions, progress: Progress | None) -> DecoderModel:
    """Return the decoder of a name; see `bge_eval.models.opening.open_model`."""
    examples = read_examples(options.examples) if options.examples is not None else None
    if examples is None and known_name(name, options.overrides.known_as) == _WITH_EXAMPLES:
        examples = {}
    return DecoderModel(name, options, examples=examples, progress=progress)


KIND = Kind(
    "a decoder",
    recognises=is_decoder,
    open=open_decoder,
    supported=ENCODER_OPTIONS | {"examples", "adapter", "index"},
)
