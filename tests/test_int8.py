"""int8 is calibrated on texts that its identity names, made once, and near float32."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bge_eval import load_model
from bge_eval.encode.calibration import read_calibration
from bge_eval.encode.locate import locate
from bge_eval.encode.prompts import Instructions, Prompts, usual_prompts
from bge_eval.encode.settings import Overrides
from bge_eval.errors import BgeEvalError, DamagedError, MissingError, NotReadyError, UsageError
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.rerank.families import load_reranker
from bge_eval.rerank.filing import own_experiment
from bge_eval.rerank.kinds import RerankerKind
from bge_eval.rerank.reranker import RerankerOptions
from bge_eval.results.identity import Identity
from bge_eval.runtime.eight_bit import saturates
from conftest import BUILTIN
from test_encoder import TEXTS

pytest.importorskip("nncf")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BGE_EVAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A file of the fewest texts, so that a tiny model is quantised in a second."""
    path = tmp_path / "texts.jsonl"
    lines = read_calibration().lines[:26]
    write_lines(path, [{"query": query, "text": text} for query, text in lines])
    return path


def write_lines(path: Path, lines: list[Any]) -> None:
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")


class Notes(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def opened(folder: Path | str, **settings: Any) -> EncoderModel:
    model = load_model(str(folder), store=False, device="cpu", **settings)
    assert isinstance(model, EncoderModel)
    return model


def quantised(cache: Path) -> list[Path]:
    return sorted(cache.glob("openvino/[!.]*-int8-*"))


@pytest.mark.slow
def test_int8_is_made_once_checked_and_near_float32(
    tiny_bge: Path, few: Path, own_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    full = opened(tiny_bge, dtype="float32").encoder.encode(TEXTS)
    notes = Notes()
    model = opened(tiny_bge, dtype="int8", calibration=few, progress=notes)
    small = model.encoder.encode(TEXTS)
    cosines = (full * small).sum(axis=1)
    assert cosines.min() > 0.95 and not np.allclose(full, small, atol=1e-5)
    assert "mean cosine" in " ".join(notes.texts)
    assert capfd.readouterr().out == ""
    [folder] = quantised(own_cache)
    made = (folder / "model.bin").stat().st_mtime_ns
    again = opened(tiny_bge, dtype="int8", calibration=str(few), progress=(notes := Notes()))
    np.testing.assert_array_equal(again.encoder.encode(TEXTS), small)
    assert (folder / "model.bin").stat().st_mtime_ns == made
    # Whether int8 is slower than float32 depends on the machine and on what else it does.
    assert not [text for text in notes.texts if "is slower than float32" not in text]
    (folder / "model.bin").write_bytes(b"")  # what is damaged is made again
    np.testing.assert_array_equal(
        opened(tiny_bge, dtype="int8", calibration=few).encoder.encode(TEXTS), small
    )


def test_int8_that_computes_otherwise_here_is_refused(
    tiny_bge: Path, few: Path, own_cache: Path
) -> None:
    """As on a processor whose 8-bit products overflow."""
    assert opened(tiny_bge, dtype="int8", calibration=few).encoder
    [folder] = quantised(own_cache)
    expected = np.load(folder / "expected.npy")
    np.save(folder / "expected.npy", np.roll(expected, 1, axis=1))
    with pytest.raises(NotReadyError, match="wrong on this processor: its vectors of 6 texts"):
        assert opened(tiny_bge, dtype="int8", calibration=few).encoder


def test_calibration_texts_are_part_of_the_identity(tiny_bge: Path, few: Path) -> None:
    own = opened(tiny_bge, dtype="int8").settings
    other = opened(tiny_bge, dtype="int8", calibration=few).settings
    assert own.facts()["calibration"] == read_calibration().digest
    assert len({own.calibration, other.calibration, ""}) == 3
    assert "calibration" not in opened(tiny_bge, dtype="float32").settings.facts()
    assert "calibration" not in opened(tiny_bge, dtype="int8-dynamic").settings.facts()
    names = [
        opened(tiny_bge, dtype="int8", **more).mteb_model_meta.experiment_name or ""
        for more in ({}, {"calibration": few})
    ]
    assert "calibration" not in names[0] and other.calibration in names[1]


def test_torch_s_int8_of_older_results_has_its_new_name() -> None:
    model = {"pooling": "cls", "dtype": "int8"}
    assert Identity("T", "1", model, {}, {}).dtype == "int8-dynamic"
    assert Identity("T", "1", {**model, "calibration": "0" * 16}, {}, {}).dtype == "int8"
    assert Identity("T", "1", {"server": "s", "dtype": "int8"}, {}, {}).dtype == "int8"


def test_the_package_s_texts() -> None:
    ours = read_calibration()
    assert len(ours.texts(held_out=False)) == len(ours.pairs(held_out=False)) == 300
    held_out = ours.texts(held_out=True)
    assert len(held_out) == 24 and not set(held_out) & set(ours.texts(held_out=False))
    assert sum(any("一" <= letter <= "鿿" for letter in text) for _, text in ours.lines) > 20
    matched = ours.pairs(held_out=False)[0]
    assert matched == ours.lines[0]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"backend": "torch"}, UsageError, "int8 runs in OpenVINO, not with --backend torch"),
        ({"backend": "onnx"}, UsageError, "not with --backend onnx"),
        ({"dtype": "float32", "calibration": "x"}, UsageError, "is for --dtype int8, not for fl"),
        ({"calibration": "nowhere.jsonl"}, MissingError, r"nowhere.jsonl: there is no such file"),
    ],
)
def test_what_int8_refuses(
    tiny_bge: Path, settings: dict[str, Any], error: type[BgeEvalError], message: str
) -> None:
    with pytest.raises(error, match=message):
        opened(tiny_bge, **{"dtype": "int8", **settings})


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        ([{"query": "a", "text": "b"}] * 25, UsageError, "has 25 lines; .* at least 26"),
        ([{"query": "a"}] * 30, DamagedError, "line 1: expected"),
        ([{"query": "a", "text": " "}] * 30, DamagedError, "line 1: query and text must be non-em"),
        ([{"query": "a", "text": "b", "label": 1}], DamagedError, "line 1: expected"),
        (["a text"] * 30, DamagedError, "line 1: expected"),
    ],
)
def test_calibration_files_that_cannot_be_used(
    tmp_path: Path, lines: list[Any], error: type[BgeEvalError], message: str
) -> None:
    path = tmp_path / "texts.jsonl"
    write_lines(path, lines)
    with pytest.raises(error, match=message):
        read_calibration(path)
    other = tmp_path / "other.jsonl"
    other.write_bytes(b"\xff\xfe")
    with pytest.raises(DamagedError, match="cannot be read as UTF-8"):
        read_calibration(other)


def test_without_nncf_one_sentence_names_the_extra(
    tiny_bge: Path, tiny_cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        "bge_eval.runtime.backends.find_spec", lambda name: None if name == "nncf" else find(name)
    )
    with pytest.raises(MissingError, match=r"needs nncf, .* pip install bge-eval\[int8\]"):
        opened(tiny_bge, dtype="int8")
    with pytest.raises(MissingError, match=r"pip install bge-eval\[int8\]"):
        load_reranker(locate(str(tiny_cross_encoder)), RerankerOptions(dtype="int8"))
    assert opened(tiny_bge, dtype="int8-dynamic").encoder.forward.backend == "torch"


PAIRS = [(query, text) for query, text in read_calibration().lines[40:60]]


@pytest.mark.slow
def test_rerankers_in_int8(tiny_cross_encoder: Path, few: Path, own_cache: Path) -> None:
    """Scores of a random head, made wide so that int8 can be told from noise."""

    def scores(**options: Any) -> Any:
        options = {"device": "cpu", **options}
        return load_reranker(locate(str(tiny_cross_encoder)), RerankerOptions(**options))

    full, small = scores(), scores(dtype="int8", calibration=few)
    expected, actual = full.score(PAIRS), small.score(PAIRS)
    assert np.corrcoef(expected, actual)[0, 1] > 0.9 and not np.allclose(
        expected, actual, atol=1e-6
    )
    np.testing.assert_array_equal(scores(dtype="int8", calibration=few).score(PAIRS), actual)
    assert len(quantised(own_cache)) == 1
    [folder] = quantised(own_cache)
    wanted = np.load(folder / "expected.npy")
    np.save(folder / "expected.npy", -wanted)
    with pytest.raises(NotReadyError, match="wrong on this processor: its scores of 6 pairs corr"):
        scores(dtype="int8", calibration=few).score(PAIRS)
    np.save(folder / "expected.npy", wanted)
    identity = small.identity()
    assert identity["calibration"] == read_calibration(few).digest
    assert {"nncf", "openvino"} <= set(small.packages) and "nncf" not in full.packages
    assert "calibration" not in full.identity() and "runtime" not in full.identity()
    with pytest.raises(UsageError, match="int8 is for embedders and cross-encoders"):
        scores(dtype="int8", kind=RerankerKind.LATE)
    with pytest.raises(UsageError, match="int8-dynamic for embedders"):
        scores(dtype="int8-dynamic")


@pytest.mark.slow
def test_of_two_processes_one_quantises(tiny_bge: Path, few: Path, own_cache: Path) -> None:
    code = (
        "import sys; from bge_eval import load_model; from bge_eval.progress import Progress\n"
        "class Notes(Progress):\n"
        "    def note(self, text): print(text)\n"
        "model = load_model(sys.argv[1], store=False, device='cpu', dtype='int8',"
        " calibration=sys.argv[2], progress=Notes())\n"
        "assert model.encoder"
    )
    command = [sys.executable, "-c", code, str(tiny_bge), str(few)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("is quantised to int8" in output for output in outputs) == 1
    assert all("mean cosine" in o for o in outputs if "is quantised to int8" in o)
    assert len(quantised(own_cache)) == 1
    assert not list(own_cache.glob("openvino/.staging-*"))


WHEN_KILLED = {
    "calibrating": (
        "import nncf, threading\n"
        "quantize = nncf.quantize\n"
        "def killed(model, dataset, **options):\n"
        "    def rows():\n"
        "        for number, row in enumerate(dataset.get_inference_data()):\n"
        "            if number == 3: os.kill(os.getpid(), 9)\n"
        "            yield row\n"
        "    return quantize(model, nncf.Dataset(rows()), **options)\n"
        "nncf.quantize = killed\n"
    ),
    "saving": (
        "save = quantized.save_conversion\n"
        "def killed(folder, made, write):\n"
        "    save(folder, made, lambda staging: os.kill(os.getpid(), 9))\n"
        "quantized.save_conversion = killed\n"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", WHEN_KILLED)
def test_a_killed_quantisation_leaves_nothing_that_is_used(
    tiny_bge: Path, few: Path, own_cache: Path, moment: str
) -> None:
    code = (
        "import os, sys; from bge_eval import load_model; from bge_eval.runtime import quantized\n"
        f"{WHEN_KILLED[moment]}"
        "load_model(sys.argv[1], store=False, dtype='int8', calibration=sys.argv[2]).encoder"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tiny_bge), str(few)], check=False)
    assert killed.returncode == -9 and not quantised(own_cache)
    assert opened(tiny_bge, dtype="int8", calibration=few).encoder
    assert len(quantised(own_cache)) == 1
    assert not list(own_cache.glob("openvino/.staging-*"))


def test_calibration_texts_have_the_prompts_of_the_run(tiny_bge: Path, few: Path) -> None:
    plain = read_calibration(few)
    models = [
        opened(tiny_bge, dtype="int8", calibration=few, **prompts)
        for prompts in (
            {},
            {"query_prompt": "", "document_prompt": ""},
            {"query_prompt": "query: "},
            {"query_prompt": "query: ", "document_prompt": "passage: "},
            {"prompts": {"Retrieval-query": "query: ", "document": "passage: "}},
        )
    ]
    digests = [model.settings.calibration for model in models]
    assert digests[0] == digests[1] == plain.digest
    assert len(set(digests)) == 3 and digests[3] == digests[4]
    prompted = plain.prompted("query: ", "passage: ")
    assert prompted.digest == digests[3] and prompted.pairs(held_out=True) == plain.pairs(
        held_out=True
    )
    for with_prompt, without in zip(
        prompted.texts(held_out=False), plain.texts(held_out=False), strict=True
    ):
        assert with_prompt in (f"query: {without}", f"passage: {without}")
    first, second = prompted.texts(held_out=False)[:2]
    assert first.startswith("query: ") and second.startswith("passage: ")


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        (Prompts(), ("", "")),
        (Prompts({"query": "query: ", "passage": "passage: "}), ("query: ", "passage: ")),
        (Prompts({"web": "web: "}, default="web"), ("web: ", "web: ")),
        (
            Prompts(instructions=Instructions("I: {instruction}\nQ: ", for_documents=False)),
            ("I: Given a web search query, retrieve relevant passages that answer the query\nQ: ",
             ""),
        ),
        (
            Prompts({"d": "doc: "}, "d",
                    instructions=Instructions(None, {"query": "Find it"}, for_documents=False)),
            ("Find it", "doc: "),
        ),
    ],
)  # fmt: skip
def test_the_usual_prompts(prompts: Prompts, expected: tuple[str, str]) -> None:
    assert usual_prompts(prompts, Overrides()) == expected
    own = Overrides(query_prompt="q: ", document_prompt="")
    assert usual_prompts(prompts, own) == ("q: ", "")


def limited(isa: str, code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose oneDNN uses fewer instructions than the processor has."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


ON_X86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="another processor has no AVX2"
)


@ON_X86
def test_products_that_overflow_are_noticed() -> None:
    code = "from bge_eval.runtime.eight_bit import saturates; print(saturates())"
    assert limited("AVX2", code).stdout == "True\n"
    flags = Path("/proc/cpuinfo")
    if flags.is_file():
        text = flags.read_text(encoding="utf-8")
        has_vnni = any(flag in text for flag in ("avx512_vnni", "avx_vnni", "amx_int8"))
        assert saturates() is not has_vnni


def test_the_processor_names_no_folder() -> None:
    facts = {"runtime": "openvino", "calibration": read_calibration().digest, "saturates": True}
    identity = {"name": "r", "revision": "1", "dtype": "int8", **facts}
    assert own_experiment(identity) == {"dtype": "int8"}


@ON_X86
@pytest.mark.slow
def test_int8_on_a_processor_without_vnni(tiny_bge: Path, few: Path, tmp_path: Path) -> None:
    """Made there, int8 is near float32 and says what it is; made here, it may be refused there."""
    full = opened(tiny_bge, dtype="float32").encoder.encode(TEXTS)
    here = opened(tiny_bge, dtype="int8", calibration=few)
    assert here.encoder
    assert here._processor_facts() == ({"saturates": True} if saturates() else {})
    code = (
        "import json, os, sys, numpy as np; from bge_eval import load_model\n"
        "from bge_eval.errors import NotReadyError; from bge_eval.progress import Progress\n"
        "class Notes(Progress):\n"
        "    def note(self, text): print(text)\n"
        "def opened():\n"
        "    return load_model(sys.argv[1], store=False, device='cpu', dtype='int8',"
        " calibration=sys.argv[2], progress=Notes())\n"
        "try: assert opened().encoder\n"
        "except NotReadyError as error: print(error)\n"
        "os.environ['BGE_EVAL_CACHE'] += '-of-its-own'\n"
        "model = opened()\n"
        "np.save(sys.argv[3], model.encoder.encode(json.loads(sys.argv[4])))\n"
        "print('FACTS', model._processor_facts())"
    )
    there = tmp_path / "there.npy"
    done = limited("AVX2", code, tiny_bge, few, there, json.dumps(TEXTS))
    assert done.returncode == 0, done.stderr
    assert "FACTS {'saturates': True}" in done.stdout
    assert "8-bit products overflow on this processor" in done.stdout
    if not saturates():  # large random weights overflow much; trained ones by 0.002
        assert "in int8 is wrong on this processor: its vectors of 6 texts" in done.stdout
    assert (np.load(there) * full).sum(axis=1).mean() > 0.9


@ON_X86
@pytest.mark.slow
def test_bfloat16_without_its_instructions_is_refused(tiny_bge: Path) -> None:
    code = (
        "import sys; from bge_eval import load_model\n"
        "from bge_eval.errors import BgeEvalError\n"
        "try:\n"
        "    load_model(sys.argv[1], store=False, device='cpu', dtype='bfloat16',"
        " backend='openvino').encoder.encode(['a text'])\n"
        "except BgeEvalError as error: print(error)"
    )
    done = limited("AVX2", code, tiny_bge)
    assert done.returncode == 0, done.stderr
    assert "bfloat16" in done.stdout and "on this processor" in done.stdout, done.stdout


@pytest.mark.slow
def test_minilm_on_real_texts(real_data: Path) -> None:
    """Vectors, batch sizes, and nDCG@10 by a paired interval on a part of SciFact."""
    lines = (real_data / "SciFact" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    documents = {row["_id"]: f"{row['title']} {row['text']}" for row in map(json.loads, lines)}
    lines = (real_data / "SciFact" / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    rows = (real_data / "SciFact" / "qrels" / "test.tsv").read_text().splitlines()[1:]
    judged = [row.split("\t")[:2] for row in rows][:60]
    ids = list(dict.fromkeys(document for _, document in judged))
    ids += [name for name in list(documents)[:250] if name not in ids]
    asked = list(dict.fromkeys(query for query, _ in judged))
    relevant: dict[str, set[str]] = {}
    for query, document in judged:
        relevant.setdefault(query, set()).add(document)

    def ndcg(encoder: Any) -> tuple[Any, Any]:
        corpus = encoder.encode([documents[name] for name in ids])
        order = np.argsort(-(encoder.encode([queries[name] for name in asked]) @ corpus.T))
        values = []
        for query, ranked in zip(asked, order[:, :10], strict=True):
            gains = np.array([ids[row] in relevant[query] for row in ranked])
            ideal = min(len(relevant[query]), 10)
            discount = 1 / np.log2(np.arange(2, 12))
            values.append(float((gains * discount).sum() / discount[:ideal].sum()))
        return corpus, np.array(values)

    full, of_full = ndcg(opened(BUILTIN, dtype="float32").encoder)
    encoder = opened(BUILTIN, dtype="int8").encoder
    small, of_small = ndcg(encoder)
    cosines = (full * small).sum(axis=1)
    assert cosines.mean() > 0.99 and cosines.min() > 0.97
    encoder.batch_tokens = 300  # rounding of float32 may move a number to the next of 256 steps
    again = encoder.encode([documents[name] for name in ids[:60]])
    assert (again * small[:60]).sum(axis=1).min() > 0.999
    difference = of_small - of_full
    half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
    assert abs(difference.mean()) < 0.03 and difference.mean() + half > 0
