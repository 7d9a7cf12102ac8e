"""Encoders of other libraries: any object with ``encode``, mteb's loaders, static embeddings.

mteb's own exact search (``SearchEncoderWrapper``) searches their vectors, because each of them
defines its own similarity.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from bge_eval.encode.config import CONFIG, module_kind, read_modules, read_object
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.locate import locate
from bge_eval.errors import BgeEvalError, DamagedError, MissingError, UsageError, one_line
from bge_eval.models.base import Model, model_meta
from bge_eval.models.kinds import Kind, Loader, ModelOptions
from bge_eval.progress import Progress, quiet_transformers
from bge_eval.records import Run, Vectors
from bge_eval.runtime.checks import refuse_unusable

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta


_STATIC = "static embeddings"


class ForeignModel(Model):
    """An encoder that another library has loaded, behind mteb's protocols."""

    encodes: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        revision: str,
        load: Callable[[], Any],
        *,
        settings: Mapping[str, Any],
        packages: tuple[str, ...] = (),
        progress: Progress | None = None,
    ) -> None:
        """Keep the loading function, which the first text calls.

        Args:
            name: ``org/model``, as results are filed.
            revision: 40 hexadecimal digits or a commit.
            load: returns the object. Its ``encode`` is mteb's (with ``task_metadata``), or takes a
                list of texts; ``encode_queries`` and ``encode_corpus`` are used where it has them.
            settings: the other settings that its scores depend on.
            packages: packages whose version can change a score.
            progress: receives the steps of loading and encoding.
        """
        super().__init__(progress)
        self._packages = packages
        self._name, self._revision = name, revision
        self._load = load
        self._settings = dict(settings)
        self._object: Any = None
        self._search: Any = None

    def introduction(self) -> tuple[str, ...]:
        """Return name, revision and settings."""
        settings = ", ".join(f"{name} {value}" for name, value in self._settings.items())
        return (f"{self._name} at {self._revision[:12]}: {settings}",)

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the packages that load and run it."""
        return self._packages

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return mteb's record; its experiment tells mteb's loader from ours."""
        loader = {"loader": "mteb"} if "loader" in self._settings else None
        own = {"name": self._name, "revision": self._revision, "experiment_kwargs": loader}
        return model_meta(own, framework=["PyTorch"])

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return name, revision and settings; its prompts are not known."""
        return {"name": self._name, "revision": self._revision, **self._settings}

    # ── mteb's protocols ────────────────────────────────────────────────────────────────────

    def encode(
        self, inputs: Any, *, task_metadata: TaskMetadata, prompt_type: Any = None, **kwargs: Any
    ) -> Any:
        """Encode the texts of mteb's dataloader.

        Returns:
            ``(n_texts, dim)`` float32; a sparse tensor of torch where the object returns one and
            compares by itself.

        Raises:
            DamagedError: the object did not return one finite vector for each text.
        """
        encoder = self._loaded()
        count = len(inputs.dataset)
        with self.progress.step("encode", count, "texts") as step:
            if "task_metadata" in inspect.signature(encoder.encode).parameters:
                returned = encoder.encode(
                    inputs, task_metadata=task_metadata, prompt_type=prompt_type, **kwargs
                )
            else:
                texts = [text for batch in inputs for text in batch["text"]]
                returned = _by_role(encoder, prompt_type)(texts)
            step.advance(count)
        if getattr(returned, "is_sparse", False):
            return self._sparse(encoder, returned, count)
        if hasattr(returned, "detach"):
            returned = returned.detach().float().cpu().numpy()
        vectors: Vectors = np.asarray(returned, np.float32)
        if vectors.ndim != 2 or len(vectors) != count:
            raise DamagedError(
                f"{self._name} gave an array of shape {vectors.shape} for {count} texts; expected"
                f" one vector for each: ({count}, dimension)."
            )
        texts = [text for batch in inputs for text in batch["text"]]
        refuse_unusable(vectors, texts, zero=self._settings.get("kind") == _STATIC)
        return vectors

    def _sparse(self, encoder: Any, returned: Any, count: int) -> Any:
        """Return sparse vectors on the CPU; dense ones where the object has no similarity."""
        vectors = returned.detach().float().cpu().coalesce()
        if vectors.shape[0] != count or not vectors.values().isfinite().all():
            raise DamagedError(
                f"{self._name} gave {vectors.shape[0]} sparse vectors for {count} texts, or"
                " numbers that are not finite; expected one finite vector for each."
            )
        return vectors if hasattr(encoder, "similarity") else vectors.to_dense().numpy()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare all with all by the object's own similarity, or by cosine if it has none."""
        from mteb.similarity_functions import cos_sim

        own = getattr(self._loaded(), "similarity", None)
        return (own or cos_sim)(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare row with row, by the object's own similarity or by cosine."""
        from mteb.similarity_functions import pairwise_cos_sim

        own = getattr(self._loaded(), "similarity_pairwise", None)
        return (own or pairwise_cos_sim)(embeddings1, embeddings2)

    def index(self, corpus: Any, **kwargs: Any) -> None:
        """Pass the corpus to the object's own search, or to mteb's."""
        from mteb.models.search_wrappers import SearchEncoderWrapper

        super().index(corpus)
        loaded = self._loaded()
        own = hasattr(loaded, "index") and hasattr(loaded, "search")
        self._search = loaded if own else SearchEncoderWrapper(self)
        self._search.index(corpus, **kwargs)

    def search(self, queries: Any, **kwargs: Any) -> Run:
        """Search by the object's own search, or by mteb's; see `Model.search`."""
        self._take_corpus()
        run: Run = self._search.search(queries, **kwargs)
        return run

    def _loaded(self) -> Any:
        if self._object is None:
            with self.progress.step("load model"), quiet_transformers():
                self._object = _with_search(self._load())
            if not hasattr(self._object, "encode") and not hasattr(self._object, "search"):
                raise UsageError(
                    f"{self._name} gave an object of type {type(self._object).__name__}, which has"
                    " no encode."
                )
        return self._object


_WRAPPERS = {
    "SentenceTransformer": "SentenceTransformerEncoderWrapper",
    "SparseEncoder": "SparseEncoderWrapper",
    "MultiVectorEncoder": "MultiVectorWrapper",
}
"""sentence-transformers' classes and mteb's wrappers of them."""


def wrapped(loaded: Any, prompts: Mapping[str, str] | None = None) -> Any:
    """Return mteb's wrapper of a model of sentence-transformers.

    Args:
        loaded: a model of one of sentence-transformers' classes.
        prompts: mteb's prompts of the model; None takes the model's own.
    """
    from mteb.models import sentence_transformer_wrapper

    names = [kind.__name__ for kind in type(loaded).__mro__]
    wrapper = next(_WRAPPERS[name] for name in names if name in _WRAPPERS)
    with warnings.catch_warnings():
        # mteb asks itself by a deprecated name, and warns of models without prompts.
        warnings.simplefilter("ignore")
        return getattr(sentence_transformer_wrapper, wrapper)(loaded, model_prompts=prompts)


def _with_search(loaded: Any) -> Any:
    """Return an object that a user made, sparse and multi-vector models in mteb's wrapper."""
    names = {kind.__name__ for kind in type(loaded).__mro__}
    return wrapped(loaded) if names & {"SparseEncoder", "MultiVectorEncoder"} else loaded


_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""``package.module:function``."""
_METHODS = {"query": ("encode_queries", "encode_query")}
_METHODS["document"] = ("encode_corpus", "encode_document")


def _by_role(encoder: Any, prompt_type: Any) -> Callable[[Sequence[str]], Any]:
    role = str(getattr(prompt_type, "value", ""))
    names = [name for name in _METHODS.get(role, ()) if hasattr(encoder, name)]
    chosen: Callable[[Sequence[str]], Any] = getattr(encoder, names[0] if names else "encode")
    return chosen


def object_model(name: str, progress: Progress | None = None) -> Model:
    """Return a model over the object that a function returns.

    Its revision is a hash of the module's file; other files that it reads are not fingerprinted.

    Args:
        name: ``package.module:function``.
        progress: receives the steps of loading and encoding.

    Raises:
        MissingError: the module cannot be imported.
        UsageError: it has no such function.
    """
    module_name, _, attribute = name.partition(":")
    here = os.getcwd()  # noqa: PTH109 (a folder of modules, as Python itself takes it)
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise MissingError(f"--model {name}: the module cannot be imported ({error}).") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise UsageError(f"--model {name}: {module_name} has no function '{attribute}'.")
    source = Path(module.__file__ or "").read_bytes() if module.__file__ else b""

    def load() -> Any:
        try:
            return factory()
        except BgeEvalError:
            raise
        except Exception as error:
            raise MissingError(f"{name}() failed: {type(error).__name__}: {error}") from error

    return ForeignModel(
        f"{module_name}/{attribute}",
        hashlib.sha256(source).hexdigest()[:40],
        load,
        settings={"factory": name},
        progress=progress,
    )


def mteb_model(name: str, options: ModelOptions, progress: Progress | None = None) -> Model:
    """Return a model of mteb's registry as mteb itself loads it (``--loader mteb``).

    Args:
        name: the model's name on the hub.
        options: revision, device, whether the model's own code may run.
        progress: receives the steps of loading and encoding.

    Raises:
        UsageError: mteb does not know the name, or runs the model's own code, which is not
            allowed.
    """
    import mteb
    from mteb.models.model_implementations import MODEL_REGISTRY

    from bge_eval.errors import did_you_mean

    if name not in MODEL_REGISTRY:
        raise UsageError(
            f"--loader mteb: mteb has no loader for {name}.{did_you_mean(name, MODEL_REGISTRY)}"
        )
    meta = mteb.get_model_meta(name, options.revision, fetch_from_hf=False)
    if _runs_remote_code(meta) and not options.trust_remote_code:
        raise UsageError(
            f"--loader mteb runs Python code that comes with {name}, which bge-eval does not run by"
            " default. If you trust its authors, add --trust-remote-code."
        )

    def load() -> Any:
        try:
            return meta.load_model(device=options.device)
        except Exception as error:
            # mteb's loaders need different packages and raise different errors.
            reason = one_line(error, 400)
            raise MissingError(
                f"mteb could not load {name} ({type(error).__name__}: {reason})"
            ) from error

    return ForeignModel(
        name,
        str(meta.revision),
        load,
        settings={"loader": "mteb", **({"remote_code": True} if options.trust_remote_code else {})},
        packages=("sentence-transformers",),
        progress=progress,
    )


def _runs_remote_code(meta: ModelMeta) -> bool:
    """Return whether mteb's loader runs code of the model's repository, by options or by its text.

    mteb asks nobody: some entries of its registry allow it, some loaders allow it themselves.
    """
    if (meta.loader_kwargs or {}).get("trust_remote_code"):
        return True
    try:
        text = inspect.getsource(cast("Any", meta.loader))
    except (OSError, TypeError):  # no loader, or none in Python
        return False
    return (
        re.search(r"trust_remote_code[^,)\n]*=\s*True|trust_remote_code\W+True", text) is not None
    )


def is_static(folder: Path) -> bool:
    """Return whether a folder holds static embeddings (model2vec), which need no transformer."""
    if any(module_kind(module) == "StaticEmbedding" for module in read_modules(folder) or []):
        return True
    config = read_object(folder / CONFIG)
    return (
        config.get("model_type") == "model2vec"
        or "StaticModel" in (config.get("architectures") or [])
        or "embedding_dtype" in config
    )


def static_model(files: ModelFiles, progress: Progress | None = None) -> Model:
    """Return static embeddings, loaded by sentence-transformers or by model2vec.

    Raises:
        MissingError: model2vec is needed and not installed.
    """
    by_modules = (files.folder / "modules.json").is_file()

    def load() -> Any:
        if by_modules:
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(str(files.folder), device="cpu", local_files_only=True)
        try:
            from model2vec import StaticModel
        except ImportError as error:
            raise MissingError(
                f"{files.name} holds static embeddings, which need a package that is not installed:"
                " pip install 'bge-eval[static]'"
            ) from error
        return StaticModel.from_pretrained(str(files.folder))

    return ForeignModel(
        files.name,
        files.revision,
        load,
        settings={"kind": _STATIC},
        packages=("sentence-transformers",) if by_modules else ("model2vec",),
        progress=progress,
    )


def _holds_static(name: str, options: ModelOptions) -> bool:
    """Return whether a folder, or a repository of the hub, holds static embeddings."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return is_static(folder)
    if "/" not in name or name.startswith((".", "/", "~")):
        return False
    return is_static(locate(name, revision=options.revision, offline=options.offline).folder)


OBJECT = Kind(
    "an object of a Python module",
    recognises=lambda name, options: (
        _FUNCTION.fullmatch(name) is not None and not name.startswith("builtin:")
    ),
    open=lambda name, options, progress: object_model(name, progress),
)
MTEB = Kind(
    "loaded by mteb",
    recognises=lambda name, options: options.loader is Loader.MTEB,
    open=mteb_model,
    supported=frozenset({"revision", "loader"}),
)
STATIC = Kind(
    "static embeddings",
    recognises=_holds_static,
    open=lambda name, options, progress: static_model(
        locate(name, revision=options.revision, offline=options.offline), progress
    ),
    supported=frozenset({"revision"}),
)
