"""Any Hugging Face encoder behind mteb's protocols.

It encodes (mteb's EncoderProtocol) and searches (SearchProtocol), in
``mteb.evaluate(bge_eval.load_model("BAAI/bge-base-en-v1.5"), tasks)`` as in ``bge-eval run``.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bge_eval.encode.body import tokenizer_options
from bge_eval.encode.config import transformer_folder
from bge_eval.encode.copies import copy_notes, refuse_other_model, refuse_unclear
from bge_eval.encode.locate import locate
from bge_eval.encode.positions import own_positions
from bge_eval.encode.prompts import left_out_note
from bge_eval.encode.protocol import ProtocolName, read_protocol
from bge_eval.encode.settings import (
    Backend,
    apply_overrides,
    calibration_of,
    read_model_config,
)
from bge_eval.encode.shards import text_keys
from bge_eval.encode.store import EmbeddingStore, default_store
from bge_eval.errors import UsageError
from bge_eval.models.dense import DenseModel
from bge_eval.models.form import Form
from bge_eval.models.introduction import settings_line
from bge_eval.models.kinds import ENCODER_OPTIONS, Kind, ModelOptions
from bge_eval.progress import Progress, WorkDone
from bge_eval.records import Vectors
from bge_eval.results.markers import parts_of
from bge_eval.runtime.backends import Execution, choose_backend, load_encoder, saturation
from bge_eval.runtime.pooling import PLAIN
from bge_eval.runtime.text_encoder import Distinct, finished

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata

    from bge_eval.encode.files import ModelFiles
    from bge_eval.encode.store import Space
    from bge_eval.models.spread import Workers
    from bge_eval.progress import Step
    from bge_eval.runtime.text_encoder import TextEncoder
    from bge_eval.search.index import IdsOf, Rows


_VECTOR_PACKAGES = ("tokenizers", "torch", "transformers")
"""Packages whose version may change a vector."""


class EncoderModel(DenseModel):
    """A Hugging Face encoder behind mteb's protocols.

    The constructor reads the settings; the first text that must be encoded loads the weights. So
    a run whose results are all saved loads no weights.
    """

    workers: Workers | None = None
    """Who encodes in place of this process; None where it encodes itself."""
    _counts_stored = True
    """Whether vectors from the store are progress; not where they were just encoded."""

    def __init__(
        self,
        model_name: str,
        options: ModelOptions | None = None,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Find the model and read its settings.

        Args:
            model_name: hub id, local folder or ``builtin:all-MiniLM-L6-v2``.
            options: settings, device, backend, store; None for the defaults.
            progress: reports encoding and searching.

        Raises:
            UsageError: an option does not fit the model.
            MissingError: the model cannot be found.
            DamagedError: its files cannot be used.
        """
        options = options or ModelOptions()
        overrides = options.overrides
        files = _located(model_name, options)
        config = read_model_config(files, overrides)
        self.settings = apply_overrides(config.settings, overrides, config.prompts)
        super().__init__(
            files,
            config.prompts,
            overrides,
            comparison=self.settings.similarity,
            normalize=self.settings.normalize,
            protocol=read_protocol(overrides.protocol or ProtocolName.LEADERBOARD),
            index=options.index,
            progress=progress,
        )
        self._refuse_protocol()
        self._own_settings = config.settings
        self._options = options
        self._chosen_backend = str(
            choose_backend(options.backend, self.files, self.settings, options.device)
        )
        stated = tokenizer_options(transformer_folder(files.folder))
        self._own_positions = own_positions(files, {**stated, **self.settings.tokenizer})
        self._store = _open_store(options.store, self.progress)
        if self._store is not None:
            # At exit, or as soon as nobody holds the model: a process may open many.
            weakref.finalize(self, self._store.flush)
        self.merges_searches = False
        """Whether the parts of each corpus were searched elsewhere, and are merged here."""
        self._encoder: TextEncoder | None = None
        self._stored_sizes: dict[str, int] = {}
        self._copy = config.copy
        refuse_unclear(files, config.copy, config.prompts, overrides)
        meta = self._make_meta(
            self._experiment() or None,
            framework=["PyTorch"],
            use_instructions=self.prompts.has_text,
        )
        self._meta = meta.model_copy(update={"max_tokens": self.settings.max_length})

    def _refuse_protocol(self) -> None:
        """Refuse a protocol for models of one query prompt, where each task has its own."""
        one_prompt = self.prompts.instructions is None or self.overrides.query_prompt is not None
        if self._stated_protocol() and not one_prompt:
            raise UsageError(
                f"--protocol {self.protocol.name} holds the rules of BGE, whose models have one"
                f" query prompt; {self.files.name} gets an instruction for each task. Leave the"
                " option out, or give one prompt with --query-prompt."
            )

    # ── identity ────────────────────────────────────────────────────────────────────────────

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return everything about this model that the scores of one task depend on."""
        return {
            "name": self.files.name,
            "revision": self.files.revision,
            **self.settings.facts(),
            **self._base_identity(),
            "normalize": self._normalizes(task),
            "prompts": self._prompts(task),
            **self._stated_protocol(),
            **self._backend_identity(),
            **self._processor_facts(),
            **self._own_positions,
            **({"remote_code": True} if self._options.trust_remote_code else {}),
        }

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the packages that compute, where their version may change a vector."""
        name = {"onnx": "onnxruntime", "openvino": "openvino"}
        more = [name[chosen] for chosen in self._backend_identity().values()]
        if self.settings.calibration:
            more.append("nncf")
        if self.settings.modules or self.settings.pooling not in PLAIN:
            more.append("sentence-transformers")
        if self.files.base is not None:
            more.append("peft")
        return tuple(more)

    def introduction(self) -> tuple[str, ...]:
        """Return the settings that decide the score, and a hint where a prompt may be missing."""
        rules = self.protocol.name if self._stated_protocol() else ""
        return (
            settings_line(self.files, self.settings, self.prompts, self.overrides, rules),
            *copy_notes(self._copy, self.prompts, self.overrides),
            *left_out_note(self.prompts, self.overrides),
        )

    def machine_settings(self) -> dict[str, Any]:
        """Return backend, device, batch size, dimension and parameters.

        A model whose vectors all came from the store is not loaded: only the sizes are known.
        """
        if self._encoder is None:
            return self._stored_sizes
        return {
            "backend": self._encoder.forward.backend,
            "device": self._encoder.device,
            "batch_tokens": self._encoder.batch_tokens,
            "dimension": self._encoder.dimension,
            "parameters": self._encoder.parameters,
        }

    # ── encoding ────────────────────────────────────────────────────────────────────────────

    @property
    def encoder(self) -> TextEncoder:
        """Return the loaded encoder, loading it the first time."""
        if self._encoder is None and self.workers is not None:
            from bge_eval.models.spread import open_spread

            with self.progress.step("start workers"):
                self._encoder = open_spread(self, self.workers)
        if self._encoder is None:
            options, texts = self._options, None
            if self.settings.calibration:
                texts = calibration_of(self.overrides, self.prompts)
            execution = Execution(
                options.backend, options.device, options.batch_tokens, options.trust_remote_code
            )
            with self.progress.step("load model"):
                self._encoder = load_encoder(
                    self.files,
                    self.settings,
                    execution,
                    calibration=texts,
                    progress=self.progress,
                )
        return self._encoder

    @property
    def trusts_remote_code(self) -> bool:
        """Return whether Python code that comes with the model is run."""
        return self._options.trust_remote_code

    @property
    def options(self) -> ModelOptions:
        """Return the options that the model was opened with."""
        return self._options

    @property
    def store(self) -> EmbeddingStore | None:
        """Return the embedding store; None where nothing is stored."""
        return self._store

    def flush(self) -> None:
        """Write the vectors that are not yet in the embedding store."""
        if self._store is not None:
            self._store.flush()

    def space_of(self, form: Form) -> Space:
        """Return the stored vectors of texts of a form.

        Raises:
            UsageError: the model stores no vectors.
        """
        space = self._space(form, self._inputs([], form)[1])
        if space is None:
            raise UsageError("--no-store keeps no vectors that several machines could share.")
        return space

    def inputs(self, texts: list[str], form: Form) -> tuple[list[str], str]:
        """Return the texts in their form, and the prompt that the encoder puts before them."""
        return self._inputs(texts, form)

    def encoder_of(self, form: Form) -> TextEncoder:
        """Return the encoder for inputs of a form: this process's own, or the workers'."""
        encoder = self.encoder if self.workers is not None else None
        if encoder is None:
            return self._encoder_of(form)
        from bge_eval.models.spread import SpreadEncoder

        assert isinstance(encoder, SpreadEncoder)
        return encoder.of(form)

    def worked_before(self, identity: str) -> list[WorkDone]:
        """Return the parts of the corpus that were encoded elsewhere; see `Model.worked_before`."""
        return [] if self._store is None else parts_of(self._store.root, identity)

    def vectors_of(self, texts: list[str], form: Form) -> Vectors:
        """Return the vectors of texts as a search compares them: ``(n_texts, dim)`` float32."""
        with self.progress.step("encode") as step:
            return self._comparable(self._vectors(texts, form, step))

    def _vectors(
        self, texts: list[str], form: Form, step: Step, *, normalize: bool | None = None
    ) -> Vectors:
        """Encode the texts that are not stored; equal texts of a call get equal vectors."""
        texts, prompt = self._inputs(texts, form)
        space = self._space(form, prompt)
        if space is None:
            return self.encoder_of(form).encode(texts, prompt, step, normalize=normalize)
        distinct = Distinct(texts)
        with self.progress.step("store") as stored:
            keys = text_keys(distinct.texts)
            known, vectors = space.get(keys)
            # A step of its own, since the model spent no time on stored vectors.
            stored.advance(int(distinct.copies[known].sum()))
        if self._counts_stored:
            step.advance(int(distinct.copies[known].sum()))
        self._stored_sizes = self._used_sizes(space.sizes) if known.any() else {}
        if vectors is None or not known.all():
            dimension = self.encoder.forward.dimension
            stored_vectors, vectors = vectors, np.empty((len(keys), dimension), np.float32)
            if stored_vectors is not None:
                vectors[known] = stored_vectors
            encoder, copies = self.encoder_of(form), distinct.copies
            for rows, pooled in encoder.parts(
                distinct.texts, prompt, step, copies=copies, wanted=~known
            ):
                vectors[rows] = pooled
                with self.progress.step("store"):
                    space.put(keys[rows], pooled, self.encoder.parameters)
        return distinct.spread(finished(vectors, self.settings, normalize))

    def _found(
        self, corpus: Dataset, form: Form, queries: Vectors, k: int, ids_of: IdsOf
    ) -> list[tuple[Rows, Vectors]]:
        """Search the corpus, or merge the searches of its parts."""
        if not self.merges_searches:
            if self.workers is not None and self._store is not None:
                from bge_eval.models.spread import encode_ahead

                encode_ahead(self, self.workers, corpus, form)
                self._counts_stored = False
            try:
                return super()._found(corpus, form, queries, k, ids_of)
            finally:
                self._counts_stored = True
        from bge_eval.models.searched import SearchedParts

        with self.progress.step("search"):
            searched = SearchedParts(self.space_of(form), corpus, queries, k)
            return searched.merged(ids_of)

    def _used_sizes(self, stored: Mapping[str, int]) -> dict[str, int]:
        """Return the sizes of a space's model, with the dimension after truncation."""
        dimension = stored.get("dimension", 0)
        used = {"dimension": min(dimension, self.settings.truncate_dim or dimension)}
        return {name: size for name, size in {**stored, **used}.items() if size}

    def _inputs(self, texts: list[str], form: Form) -> tuple[list[str], str]:
        """Return the texts in their form, and the prompt that the encoder puts before them."""
        return texts, form.prompt

    def _encoder_of(self, form: Form) -> TextEncoder:
        """Return the encoder for inputs of a form."""
        return self.encoder

    def _own_facts(self, form: Form) -> dict[str, str]:
        """Return what stored vectors depend on, beside revision, settings, prompt and packages."""
        return {}

    def _space(self, form: Form, prompt: str) -> Space | None:
        """Return the stored vectors of this model with a prompt, by everything they depend on."""
        if self._store is None:
            return None
        return self._store.space(self.files.name, self.facts(form, prompt))

    def facts(self, form: Form, prompt: str) -> dict[str, Any]:
        """Return everything that a stored vector depends on beside its text; JSON values."""
        settings = self.settings.facts()
        # Vectors are stored before they are normalised and truncated.
        for name in ("normalize", "truncate_dim", "similarity"):
            del settings[name]
        return {
            "revision": self.files.revision,
            **settings,
            **self._base_identity(),
            **self._backend_identity(),
            **self._processor_facts(),
            **self._own_positions,
            "prompt": prompt,
            **self._own_facts(form),
            "packages": {name: _version(name) for name in (*_VECTOR_PACKAGES, *self.packages)},
        }

    def _base_identity(self) -> dict[str, Any]:
        """Name the model that the folder's adapter changes, if it is one."""
        base = self.files.base
        return {} if base is None else {"base": {"name": base.name, "revision": base.revision}}

    def _backend_identity(self) -> dict[str, str]:
        """Name the backend where it may change a vector by more than float32's rounding."""
        chosen = self._chosen_backend
        plain = chosen == "torch" or (chosen == "openvino" and self.settings.dtype == "float32")
        return {} if plain else {"backend": chosen}

    def _processor_facts(self) -> dict[str, bool]:
        """Return what of this processor changes a vector by more than float32's rounding."""
        return saturation() if self.settings.calibration else {}

    def _experiment(self) -> dict[str, str | int | bool]:
        """Return the settings that are not the model's own; they name the results' folder.

        A backend that ``auto`` chose is not among them: the same command names the same folder on
        every processor. The identity records it.
        """
        changed = self._changed(self._own_settings.facts(), self.settings.facts())
        if self.overrides.calibration is None:
            changed.pop("calibration", None)
        return changed | ({} if self._options.backend is Backend.AUTO else self._backend_identity())


def _located(name: str, options: ModelOptions) -> ModelFiles:
    """Return the files of a model; refuse prompts of other models before it is downloaded."""
    if options.overrides.known_as is None and not Path(name).expanduser().is_dir():
        refuse_other_model(name, options.overrides)
    return locate(
        name,
        revision=options.revision,
        offline=options.offline,
        onnx=options.backend is Backend.ONNX,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # stored vectors need no package
        return ""


def _open_store(store: bool | Path, progress: Progress) -> EmbeddingStore | None:
    if store is False:
        return None
    root = default_store() if store is True else store
    return EmbeddingStore(root, progress.note)


def _open(name: str, options: ModelOptions, progress: Progress | None) -> EncoderModel:
    return EncoderModel(name, options, progress=progress)


KIND = Kind(
    "an encoder",
    recognises=lambda name, options: True,
    open=_open,
    supported=ENCODER_OPTIONS | {"index"},
)
