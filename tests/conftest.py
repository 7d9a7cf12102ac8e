"""What the tests share: real tiny models, real data where it is present, the command line."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hub_server import HubServer
    from parity.flagembedding import FlagEmbedding

# Read at import by the libraries: no test may reach for a network by accident.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# rich reads the width of a terminal once, when the console is made.
os.environ["COLUMNS"] = "160"
# The libraries make a million objects that stay; by Python's own thresholds they are searched for
# garbage again and again, for a third of the seconds of their imports.
gc.set_threshold(50_000, 20, 10)
# Each worker of pytest-xdist takes one core; more threads would only wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
else:
    # Converted models and embeddings are shared by the tests of one run, on all of its workers, and
    # by nobody else.
    _CACHE = tempfile.TemporaryDirectory(prefix="bge-eval-cache-")
    os.environ["BGE_EVAL_CACHE"] = _CACHE.name

BUILTIN = "builtin:all-MiniLM-L6-v2"
ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files of slow tests alone first: begun last, they would keep one core busy alone."""
    quick = {item.path for item in items if item.get_closest_marker("slow") is None}
    items.sort(key=lambda item: item.path in quick)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Data sets with published scores, which do not ship with the project."""
    folder = ROOT.parent / "shared" / "datasets"
    if not (folder / "SciFact" / "corpus.jsonl").is_file():
        pytest.skip(
            "needs real data sets: put BEIR folders (SciFact/corpus.jsonl, queries.jsonl,"
            " qrels/test.tsv; XQuADRetrieval/zh/…) into ../shared/datasets beside the checkout"
        )
    return folder


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The embedded model's files: real weights and a real tokenizer."""
    from bge_eval.encode.locate import locate

    return locate(BUILTIN).folder


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes, as on a full disk."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_beir(
    folder: Path,
    corpus: Sequence[Mapping[str, object]],
    queries: Mapping[str, str],
    qrels: Sequence[tuple[str, str, object]],
    split: str = "test",
) -> Path:
    """Write a data set in the BEIR layout."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False) for record in corpus]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = [json.dumps({"_id": k, "text": v}, ensure_ascii=False) for k, v in queries.items()]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in qrels)]
    (folder / "qrels" / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def small_scifact(tmp_path: Path) -> Path:
    """A data folder with a SciFact of five documents, for whatever needs no real scores."""
    write_beir(
        tmp_path / "data" / "scifact",
        [
            {"_id": "d1", "title": "Vitamin D", "text": "Vitamin D strengthens bones."},
            {"_id": "d2", "title": "", "text": "Sleep loss weakens memory."},
            {"_id": "d3", "title": "糖尿病", "text": "二型糖尿病与体重有关。"},
            {"_id": "d4", "text": "Aspirin thins the blood."},
            {"_id": "d5", "title": "Bees", "text": "Honey bees dance to point at flowers."},
        ],
        {"q1": "what makes bones strong", "q2": "memory and sleep", "q3": "糖尿病的原因"},
        [("q1", "d1", 2), ("q1", "d4", 0), ("q2", "d2", 1), ("q3", "d3", 1)],
    )
    return tmp_path / "data"


@pytest.fixture(scope="session")
def tiny_bge(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """A random two-layer BERT in the layout of BGE's repositories: CLS, normalise, 512 tokens."""
    return make_encoder(tmp_path_factory.mktemp("hub") / "bge-base-en-v1.5", minilm_folder, "cls")


@pytest.fixture(scope="session")
def tiny_cross_encoder(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """A random two-layer BERT with one relevance score, as rerankers are published."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("models") / "tiny-reranker"
    torch.manual_seed(7)
    config = BertConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        initializer_range=0.3,
    )
    config.num_labels = 1
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(minilm_folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def flagembedding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlagEmbedding]:
    """FlagEmbedding itself. Tests that use it are slow; without it they fail."""
    from environments import FLAGEMBEDDING, EnvironmentError
    from parity.flagembedding import FlagEmbedding

    try:
        python = FLAGEMBEDDING.program("python")
    except EnvironmentError as error:
        pytest.fail(str(error), pytrace=False)
    asked = FlagEmbedding(python, tmp_path_factory.mktemp("flagembedding"))
    yield asked
    asked.close()


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub of this machine."""
    from hub_server import HubServer

    with HubServer() as server:
        yield server


@pytest.fixture
def online(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that may only reach the local hub, with an empty cache."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }


def make_encoder(folder: Path, tokenizer: Path, pooling: str, *, bare: bool = False) -> Path:
    """Save a random tiny encoder with sentence-transformers (or, bare, with transformers alone)."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(3)
    config = BertConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer, model_max_length=512).save_pretrained(folder)
    if not bare:
        body = Transformer(str(folder), max_seq_length=512)
        modules = [body, Pooling(body.get_embedding_dimension(), pooling_mode=pooling), Normalize()]
        SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def bge_eval_process(tmp_path: Path) -> CommandLine:
    """Run the real command in a process of its own, in an empty folder.

    Starting Python and importing the libraries takes seconds: for tests of the process itself
    (environment, sockets, signals, streams). `bge_eval` runs the same command in this process.
    """

    def call(
        *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        place = tmp_path / "cwd"
        place.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, "-m", "bge_eval", *map(str, arguments)],
            cwd=place,
            env={**os.environ, "COLUMNS": "160", **(env or {})},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return call


@pytest.fixture
def bge_eval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bge_eval_process: CommandLine
) -> CommandLine:
    """Run the command in this process, in an empty folder; with ``env``, in one of its own."""
    import warnings

    from typer.testing import CliRunner

    from bge_eval.cli.app import application_for

    place = tmp_path / "cwd"

    def call(
        *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        if env is not None:
            return bge_eval_process(*arguments, env=env)
        place.mkdir(exist_ok=True)
        # The command silences warnings, sets variables and extends the path for good.
        with monkeypatch.context() as patch, warnings.catch_warnings():
            patch.chdir(place)
            patch.setattr(sys, "path", [*sys.path])
            before = dict(os.environ)
            patch.setenv("COLUMNS", "160")
            words = [str(argument) for argument in arguments]
            done = CliRunner().invoke(application_for(words), words)
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    return call


@pytest.fixture
def bge_eval_here(
    bge_eval: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """Run the command in this process, and the test itself in the command's folder."""
    (tmp_path / "cwd").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(sys, "path", [*sys.path])
    return bge_eval
