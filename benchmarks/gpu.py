"""Encoding speed on a GPU: batches without padding, padded ones, and mteb, alternating.

    python benchmarks/gpu.py                                  # base and large on CUDA, minutes
    python benchmarks/gpu.py --device cpu --shape tiny --texts 60 --rounds 1

Models have random weights in the shape of a published one, since speed does not depend on their
values, and the embedded model's tokenizer; texts are random words whose numbers are log-normal, as
those of passages are. Every contender encodes the same texts, tokenising included. The fraction of
the peak is that of the largest rate of a matrix product measured on the same card.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from measuring import figure, table

SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    "minilm": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6},
    "base": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
    "large": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24},
}
"""BERT's sizes by name."""
_HEADS = {"tiny": 4, "minilm": 12, "base": 12, "large": 16}
_MAX_LENGTH = 512
_MEDIAN_WORDS, _SPREAD = 120, 0.7
_NAMES = {
    "unpadded": "bge-eval bfloat16, no padding",
    "padded": "bge-eval bfloat16, padded",
    "float32": "bge-eval float32, no padding",
    "mteb": "mteb, sentence-transformers",
}


@dataclass(frozen=True, slots=True)
class Work:
    """The texts of a measurement."""

    texts: list[str]
    """Distinct texts."""
    lengths: Any
    """``(n,)``: tokens of each, special tokens included."""

    @property
    def tokens(self) -> int:
        """Return the number of tokens."""
        return int(self.lengths.sum())


def main() -> None:
    """Measure every shape; print Markdown, and write it with JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", action="append", choices=SHAPES, help="repeatable")
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=8.0, help="no round begins after them")
    parser.add_argument("--output", type=Path, help="folder for gpu.json and gpu.md")
    arguments = parser.parse_args()
    ends = time.monotonic() + 60 * arguments.minutes
    peaks = {dtype: _peak(arguments.device, dtype) for dtype in ("bfloat16", "float32")}
    measured = [
        _measured(shape, arguments.device, arguments.texts, arguments.rounds, peaks, ends)
        for shape in arguments.shape or ("base", "large")
    ]
    record = {"machine": _machine(arguments.device), "peak_tflops": peaks, "shapes": measured}
    page = _page(record)
    print(page)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "gpu.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
        (arguments.output / "gpu.md").write_text(page, encoding="utf-8")


def _measured(
    shape: str, device: str, texts: int, rounds: int, peaks: dict[str, float], ends: float
) -> dict[str, Any]:
    """Return the rounds of every contender on one shape."""
    with tempfile.TemporaryDirectory() as folder:
        _save(Path(folder), shape)
        work = _work(Path(folder), texts)
        encoders, notes = _contenders(Path(folder), device)
        warm = replace(work, texts=work.texts[:512])
        vectors = {name: encode(warm.texts) for name, encode in encoders.items()}
        seconds: dict[str, list[float]] = {name: [] for name in encoders}
        for _ in range(rounds):
            for name, encode in encoders.items():
                if time.monotonic() > ends and seconds[name]:
                    continue
                start = time.perf_counter()
                encode(work.texts)
                seconds[name].append(time.perf_counter() - start)
    entry: dict[str, Any] = {"shape": shape, "texts": texts, "tokens": work.tokens, "notes": notes}
    entry["padding"] = _padding(work)
    flops = _flops(shape, work)
    for name, values in seconds.items():
        rate = work.tokens / statistics.median(values)
        dtype = "float32" if name in ("float32", "mteb") else "bfloat16"
        entry[name] = {
            "seconds": values,
            "tokens_per_second": rate,
            "of_peak": flops / statistics.median(values) / 1e12 / peaks[dtype],
            "least_cosine": float(_cosines(vectors[name], vectors["mteb"]).min()),
        }
    return entry


def _contenders(
    folder: Path, device: str
) -> tuple[dict[str, Callable[[list[str]], Any]], list[str]]:
    """Return every contender's function from texts to vectors, loaded, and remarks."""
    import torch
    from sentence_transformers import SentenceTransformer

    from bge_eval.encode.locate import locate
    from bge_eval.encode.settings import Dtype, Overrides, apply_overrides, read_model_config
    from bge_eval.runtime.text_encoder import TextEncoder, load_tokenizer
    from bge_eval.runtime.torch_forward import TorchForward

    files = locate(str(folder), offline=True)
    notes: list[str] = []

    def ours(dtype: Dtype, skip_padding: bool) -> Callable[[list[str]], Any]:
        overrides = Overrides(dtype=dtype)
        settings = apply_overrides(read_model_config(files, overrides).settings, overrides)
        forward = TorchForward(
            files, settings, device=device, skip_padding=skip_padding, note=notes.append
        )
        return TextEncoder(load_tokenizer(files, settings), forward, settings).encode

    peer = SentenceTransformer(str(folder), device=device, local_files_only=True)

    def encode(texts: list[str]) -> Any:
        # The wrapper of mteb calls this, with its batch of 32.
        vectors = peer.encode(texts, batch_size=32, convert_to_tensor=True)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return vectors.cpu().numpy()

    return {
        "unpadded": ours(Dtype.BFLOAT16, True),
        "padded": ours(Dtype.BFLOAT16, False),
        "float32": ours(Dtype.FLOAT32, True),
        "mteb": encode,
    }, notes


def _save(folder: Path, shape: str) -> None:
    """Write a model with random weights in the layout of sentence-transformers."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from bge_eval.encode.locate import BUILTIN, locate

    tokenizer = AutoTokenizer.from_pretrained(locate(BUILTIN, offline=True).folder)
    tokenizer.model_max_length = _MAX_LENGTH
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_attention_heads": _HEADS[shape], **SHAPES[shape]}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=_MAX_LENGTH, **sizes)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {
            "idx": place,
            "name": str(place),
            "path": f"{place}_{kind}" if place else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, kind in enumerate(kinds)
    ]
    pooling = {"word_embedding_dimension": config.hidden_size, "pooling_mode_mean_tokens": True}
    for name, content in {
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": {"max_seq_length": _MAX_LENGTH, "do_lower_case": False},
    }.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    (folder / "2_Normalize").mkdir()


def _work(folder: Path, count: int) -> Work:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    rng = np.random.default_rng(0)
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha() and len(word) > 2)
    numbers = np.clip(rng.lognormal(np.log(_MEDIAN_WORDS), _SPREAD, count), 3, 2 * _MAX_LENGTH)
    texts = [" ".join(rng.choice(words, int(number))) for number in numbers]
    ids = tokenizer(texts, truncation=True, max_length=_MAX_LENGTH)["input_ids"]
    return Work(texts, np.array([len(row) for row in ids]))


def _padding(work: Work) -> dict[str, float]:
    """Return the share of padding among the tokens that a padded forward pass computes."""
    from bge_eval.runtime.batches import WINDOW, batches_by_length, default_batch_tokens

    ours = 0
    for start in range(0, len(work.lengths), WINDOW):
        lengths = work.lengths[start : start + WINDOW]
        for rows in batches_by_length(lengths, default_batch_tokens("cuda")):
            ours += len(rows) * int(lengths[rows].max())
    ordered = np.sort(work.lengths)[::-1]
    batches = [ordered[start : start + 32] for start in range(0, len(ordered), 32)]
    mteb = sum(len(batch) * int(batch.max()) for batch in batches)
    return {"padded": 1 - work.tokens / ours, "mteb": 1 - work.tokens / mteb}


def _flops(shape: str, work: Work) -> float:
    """Return the floating-point operations of the real tokens: matrix products and attention."""
    sizes = SHAPES[shape]
    width, inner, layers = (
        sizes[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    linear = 2 * layers * (4 * width * width + 2 * width * inner) * work.tokens
    attention = 4 * layers * width * float((work.lengths.astype(float) ** 2).sum())
    return linear + attention


def _peak(device: str, dtype: str) -> float:
    """Return the rate of a large matrix product in TFLOP/s, the best of several sizes."""
    import torch

    best = 0.0
    for size in (1024, 2048) if device == "cpu" else (4096, 8192, 12288):
        one = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
        times = 3 if device == "cpu" else 20
        for count in (1, times):
            _wait(device)
            start = time.perf_counter()
            for _ in range(count):
                one @ one
            _wait(device)
            best = max(best, 2 * size**3 * count / (time.perf_counter() - start) / 1e12)
    return best


def _wait(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _cosines(one: Any, other: Any) -> Any:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.einsum("ij,ij->i", one, other) / norms


def _machine(device: str) -> str:
    import torch
    import transformers

    card = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor()
    return f"{card or device}, torch {torch.__version__}, transformers {transformers.__version__}"


def _page(record: dict[str, Any]) -> str:
    """Return the Markdown page."""
    peaks = ", ".join(f"{name} {value:,.1f}" for name, value in record["peak_tflops"].items())
    lines = [f"{record['machine']}. Measured peaks in TFLOP/s: {peaks}.", ""]
    for entry in record["shapes"]:
        heading = [f"{entry['shape']}, {entry['texts']:,} texts", "tokens/s", "of the peak"]
        heading += ["mteb's time ÷", "least cosine"]
        slowest = statistics.median(entry["mteb"]["seconds"])
        rows = [
            [
                title,
                figure(entry[name]["tokens_per_second"], 0),
                f"{entry[name]['of_peak']:.0%}",
                figure(slowest / statistics.median(entry[name]["seconds"]), 2),
                f"{entry[name]['least_cosine']:.5f}",
            ]
            for name, title in _NAMES.items()
        ]
        padding = entry["padding"]
        lines += [
            table(heading, rows),
            "",
            f"Padding among the computed tokens: bge-eval's padded batches {padding['padded']:.1%},"
            f" mteb's {padding['mteb']:.1%}. {' '.join(entry['notes'])}".strip(),
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
