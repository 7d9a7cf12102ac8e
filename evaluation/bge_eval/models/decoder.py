"""Embedders made from language models: in-context examples and PEFT adapters.

bge-en-icl reads examples before the query and an open answer after it, as FlagEmbedding builds
it::

    <instruct>task
    <query>an example query
    <response>its passage

    <instruct>task
    <query>the query
    <response>

A text with an instruction is put in this form; a passage, which has none, stays as it is. The
length counts for instruction and query; examples come on top.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.encode.locate import content_revision
from bge_eval.encode.settings import Dtype
from bge_eval.errors import DamagedError, MissingError, UsageError, one_line
from bge_eval.models.transformer import EncoderModel
from bge_eval.records import Vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mteb.abstasks.task_metadata import TaskMetadata

    from bge_eval.encode.store import Space
    from bge_eval.runtime.text_encoder import TextEncoder

_SUFFIX = "\n<response>"
_PACKAGES = ("peft", "tokenizers", "torch", "transformers")
"""Packages whose version may change a vector."""


@dataclass(frozen=True, slots=True)
class Example:
    """One query with the passage that answers it."""

    query: str
    """The query."""
    response: str
    """The passage."""
    instruct: str | None = None
    """The task's instruction; None takes that of the task at hand."""


def read_examples(path: Path) -> dict[str, tuple[Example, ...]]:
    """Read a JSON file of examples: a list for all tasks, or lists by task name.

    Each example is ``{"query": "…", "response": "…"}``, with ``"instruct"`` if it has an
    instruction of its own.

    Returns:
        Task name → examples; "" for all others.

    Raises:
        MissingError: there is no such file.
        DamagedError: it is not JSON, or an example lacks something.
    """
    if not path.is_file():
        raise MissingError(f"--examples {path}: there is no such file.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(f"{path} is not JSON ({error}).") from error
    by_task = content if isinstance(content, dict) else {"": content}
    known = {"query", "response", "instruct"}
    found: dict[str, tuple[Example, ...]] = {}
    for task, items in by_task.items():
        for number, item in enumerate(items if isinstance(items, list) else [items], start=1):
            whole = isinstance(item, dict) and {"query", "response"} <= item.keys() <= known
            if not whole or not all(isinstance(value, str) for value in item.values()):
                place = f"{task}, example {number}" if task else f"example {number}"
                raise DamagedError(
                    f'{path}, {place}: an example is {{"query": "…", "response": "…"}}, with'
                    ' "instruct" if it has an instruction of its own.'
                )
        found[task] = tuple(Example(**item) for item in items)
    return found


class DecoderModel(EncoderModel):
    """An embedder with in-context examples, a PEFT adapter, or both."""

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        examples: Mapping[str, Sequence[Example]] | None = None,
        adapter: Path | None = None,
        **options: Any,
    ) -> None:
        """Find the model and read its settings.

        Args:
            model_name: hub id or local folder.
            revision: hub revision.
            examples: task name → examples, "" for all others; None puts nothing around queries.
            adapter: folder of a PEFT adapter, merged into the weights.
            **options: as of `EncoderModel`.

        Raises:
            MissingError: the adapter is not there.
            UsageError: the model gets no instructions, so that examples have no form.
        """
        self._examples = examples
        self._adapter = adapter.expanduser().resolve() if adapter is not None else None
        if self._adapter is not None and not (self._adapter / "adapter_config.json").is_file():
            raise MissingError(
                f"--adapter {adapter}: a PEFT adapter's folder has an adapter_config.json; this"
                " one has none."
            )
        self._adapter_revision = content_revision(self._adapter) if self._adapter else ""
        self._task = ""
        self._in_form = False
        if adapter is not None and options.get("backend", "auto") not in ("auto", "torch"):
            raise UsageError(f"--adapter runs with torch, not with --backend {options['backend']}.")
        if adapter is not None:
            options["backend"] = "torch"
        super().__init__(model_name, revision, **options)
        if examples is not None and self.prompts.instructions is None:
            raise UsageError(
                f"{self.files.name} gets no task instructions, which examples are written with."
                " Add --instruction-format '<instruct>{instruction}\\n<query>' if it was trained as"
                " bge-en-icl was."
            )

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the package that merges the adapter, too."""
        return (*super().packages, *(("peft",) if self._adapter else ()))

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return everything about this model that the scores of one task depend on."""
        self._task = task.name
        found = super().identity(task)
        if self._examples is not None:
            found["examples"] = [
                [example.instruct, example.query, example.response] for example in self._chosen()
            ]
        if self._adapter is not None:
            found["adapter"] = {"name": self._adapter.name, "revision": self._adapter_revision}
        return found

    def _experiment(self) -> dict[str, str | int | bool]:
        found = super()._experiment()
        if self._examples:
            said = repr(sorted(self._examples.items()))
            found["examples"] = hashlib.sha256(said.encode()).hexdigest()[:8]
        if self._adapter is not None:
            found["adapter"] = f"{self._adapter.name}@{self._adapter_revision[:8]}"
        return found

    @property
    def encoder(self) -> TextEncoder:
        """Return the loaded encoder, with the adapter merged into its weights."""
        loaded = self._encoder is not None
        encoder = super().encoder
        if not loaded and self._adapter is not None:
            forward: Any = encoder.forward
            if not hasattr(forward, "model") or self.settings.dtype is Dtype.INT8:
                raise UsageError("--adapter runs on one device and not in int8.")
            forward.model = _merged(forward.model, self._adapter).to(forward.device).eval()
        return encoder

    def _space(self, prompt: str) -> Space | None:
        """Keep what is stored of an adapted model, and texts in the form of examples, apart."""
        if self._store is None:
            return None
        if self._adapter is None and not self._in_form:
            return super()._space(prompt)
        form = f"{self.settings.max_length} tokens beside examples" if self._in_form else ""
        facts = {
            "revision": self.files.revision,
            **asdict(self.settings),
            **self._backend_identity(),
            "prompt": prompt,
            "adapter": self._adapter_revision,
            "form": form,
            "packages": {name: _version(name) for name in _PACKAGES},
        }
        return self._store.space(self.files.name, facts)

    # mteb names the task in every call; the form of a query depends on it.

    def encode(self, inputs: Any, *, task_metadata: TaskMetadata, **kwargs: Any) -> Vectors:
        """Encode the texts of a dataloader; see `EncoderModel.encode`."""
        self._task = task_metadata.name
        return super().encode(inputs, task_metadata=task_metadata, **kwargs)

    def search(self, queries: Any, *, task_metadata: TaskMetadata, **kwargs: Any) -> Any:
        """Search the indexed corpus; see `EncoderModel.search`."""
        self._task = task_metadata.name
        return super().search(queries, task_metadata=task_metadata, **kwargs)

    def _encode(
        self, texts: list[str], prompt: str, phase: str, *, normalize: bool | None = None
    ) -> Vectors:
        if self._examples is None or not prompt:
            return super()._encode(texts, prompt, phase, normalize=normalize)
        formed, length = self._formed(texts, prompt)
        self._in_form = True
        try:
            with _longer(self.encoder, length):
                return super()._encode(formed, "", phase, normalize=normalize)
        finally:
            self._in_form = False

    def _chosen(self) -> Sequence[Example]:
        examples = self._examples or {}
        return examples.get(self._task, examples.get("", ()))

    def _formed(self, texts: list[str], prompt: str) -> tuple[list[str], int]:
        """Put examples before and the open answer after each text; also the length they need."""
        tokenizer: Any = self.encoder.tokenizer
        limit = self.settings.max_length
        prefix = "".join(
            f"{self._instruction(example.instruct, prompt)}{example.query}{_SUFFIX}"
            f"{example.response}\n\n"
            for example in self._chosen()
        )

        def count(text: str) -> int:
            return len(tokenizer(text, add_special_tokens=False)["input_ids"])

        closing = f"{_SUFFIX}{tokenizer.eos_token or ''}"
        room = limit - count(tokenizer.bos_token or "") - count(closing)
        if room < 1:
            raise UsageError(f"--max-length {limit} leaves no room for a query.")
        cut = tokenizer(
            [prompt + text for text in texts],
            add_special_tokens=False,
            truncation=True,
            max_length=room,
        )["input_ids"]
        formed = [prefix + text + _SUFFIX for text in tokenizer.batch_decode(cut)]
        needed = (count(prefix) + count(_SUFFIX) + limit + 8) // 8 * 8 + 8
        return formed, needed

    def _instruction(self, own: str | None, prompt: str) -> str:
        if own is None:
            return prompt
        instructions = self.prompts.instructions
        assert instructions is not None
        template = instructions.template
        return template(own) if callable(template) else template.format(instruction=own)


def _version(package: str) -> str:
    try:
        return installed(package)
    except PackageNotFoundError:
        return ""


@contextmanager
def _longer(encoder: TextEncoder, length: int) -> Iterator[None]:
    settings = encoder.settings
    encoder.settings = replace(settings, max_length=length)
    try:
        yield
    finally:
        encoder.settings = settings


def _merged(model: Any, adapter: Path) -> Any:
    """Merge a PEFT adapter into a model's weights.

    Raises:
        MissingError: peft is not installed.
        DamagedError: the adapter is of another model.
    """
    try:
        from peft import PeftConfig, get_peft_model
        from peft.utils import load_peft_weights, set_peft_model_state_dict
    except ImportError as error:
        raise MissingError(
            "--adapter needs a package that is not installed: pip install 'bge-eval[peft]'"
        ) from error
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        config.inference_mode = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft asks transformers by deprecated names
            whole = get_peft_model(model, config)
        weights = load_peft_weights(str(adapter), device="cpu")
        # One trained on the model with its language head has that model's name one level in.
        inner = "base_model.model.model."
        if all(name.startswith(inner) for name in weights) and not hasattr(model, "model"):
            weights = {
                "base_model.model." + name.removeprefix(inner): tensor
                for name, tensor in weights.items()
            }
        result: Any = set_peft_model_state_dict(whole, weights)
    except (ValueError, RuntimeError, KeyError) as error:
        reason = one_line(error)
        raise DamagedError(f"The adapter {adapter} does not fit the model: {reason}") from error
    lacking = [name for name in result.missing_keys if "lora_" in name]
    if result.unexpected_keys or lacking:
        odd = [*result.unexpected_keys, *lacking][0]
        raise DamagedError(f"The adapter {adapter} is of another model: {odd} has no counterpart.")
    return whole.merge_and_unload()
