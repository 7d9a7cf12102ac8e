"""Encoding speed on a GPU: batches without padding, padded and compiled ones, and mteb's.

    python benchmarks/gpu.py                          # on CUDA; no round begins after six minutes
    python benchmarks/gpu.py --device cpu --quick     # every path of it, in a minute

Models have random weights in the shape of a published one, since speed does not depend on their
values; texts are random words whose numbers are log-normal, as those of passages are. Every
contender encodes the same texts, tokenising included, one round of each after another. The
fraction of the peak is that of the largest rate of a matrix product measured on the same card, for
the operations of the real tokens. A reranker's rows are random tokens: only the forward pass.

It needs torch, transformers and sentence-transformers, and neither mteb nor the network.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpu_models import (
    DECODERS,
    ENCODERS,
    Work,
    decoder_flops,
    decoder_of,
    encoder_flops,
    save_encoder,
    words_of,
)
from measuring import figure, table

_NAMES = {
    "unpadded": ("bge-eval bfloat16, no padding", "bfloat16"),
    "compiled": ("bge-eval bfloat16, padded, torch.compile", "bfloat16"),
    "padded": ("bge-eval bfloat16, padded", "bfloat16"),
    "peer": ("sentence-transformers bfloat16, batches of 32", "bfloat16"),
    "float32": ("bge-eval float32, no padding", "float32"),
    "mteb": ("as mteb: sentence-transformers float32, batches of 32", "float32"),
}
"""Contenders by name: their titles and precisions, the fastest expected first."""
_PUBLISHED = (
    ("text-embeddings-inference 0.6", "bge-large-en-v1.5", "L4", 1_150_000 / 18.491, "not stated"),
    (
        "infinity 0.0.25, compiled, flash-attn",
        "bge-large-en-v1.5",
        "L4",
        1_150_000 / 19.562,
        "2024",
    ),
    ("sentence-transformers float16", "bge-large-en-v1.5", "L4", 1_150_000 / 59.107, "not stated"),
    ("vLLM, requests of 16 x 512 tokens", "arctic-embed-m-v1.5", "not stated", 515_914, "2025-08"),
)
"""Others' tokens/s with model, card and date; their sources are in docs/speed.md."""


@dataclass(slots=True)
class Entry:
    """The rounds of every contender on one model."""

    shape: str
    """The model's name."""
    texts: int
    """How many texts."""
    work: Work
    """Their lengths."""
    flops: float
    """Floating-point operations of the real tokens."""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Contender → the seconds of its rounds."""
    outputs: dict[str, Any] = field(default_factory=dict)
    """Contender → its vectors of the first texts, ``(n, dim)`` float32."""
    notes: list[str] = field(default_factory=list)
    """Remarks, such as which contender failed and why."""

    def record(self, peaks: dict[str, float]) -> dict[str, Any]:
        """Return the figures as JSON holds them; ``peaks`` are TFLOP/s by precision."""
        baseline = self.outputs.get("mteb", next(iter(self.outputs.values())))
        made: dict[str, Any] = {"shape": self.shape, "texts": self.texts, "notes": self.notes}
        made |= {"tokens": self.work.tokens, "padding": _padding(self.work), "contenders": {}}
        for name, values in self.seconds.items():
            if not values:
                continue
            middle = statistics.median(values)
            made["contenders"][name] = {
                "seconds": values,
                "tokens_per_second": self.work.tokens / middle,
                "of_peak": self.flops / middle / 1e12 / peaks[_NAMES[name][1]],
                "least_cosine": float(_cosines(self.outputs[name], baseline).min()),
            }
        return made


def main() -> None:
    """Measure every shape; print Markdown after each, and write it with JSON where asked."""
    arguments = _arguments()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    ends = time.monotonic() + 60 * arguments.minutes
    peaks = {dtype: _peak(arguments.device, dtype) for dtype in ("bfloat16", "float32")}
    record: dict[str, Any] = {"machine": _machine(arguments.device), "peak_tflops": peaks}
    record["shapes"] = []
    print(_heading(record), flush=True)
    for shape in arguments.shape:
        with tempfile.TemporaryDirectory() as folder:
            measure = _encoder_entry if shape in ENCODERS else _decoder_entry
            entry = measure(shape, Path(folder), arguments, ends).record(peaks)
        record["shapes"].append(entry)
        print(_section(entry), flush=True)
        if arguments.output:  # after every shape, since a lent machine may go back
            arguments.output.mkdir(parents=True, exist_ok=True)
            page = _heading(record) + "\n".join(map(_section, record["shapes"])) + _published()
            (arguments.output / "gpu.json").write_text(json.dumps(record, indent=2), "utf-8")
            (arguments.output / "gpu.md").write_text(page, "utf-8")
    print(_published())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", action="append", choices=[*ENCODERS, *DECODERS])
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=6.0, help="no round begins after them")
    parser.add_argument("--quick", action="store_true", help="tiny models, few texts, one round")
    parser.add_argument("--output", type=Path, help="folder for gpu.json and gpu.md")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.texts, arguments.rounds = min(arguments.texts, 60), 1
    default = ["tiny", "tiny-decoder"] if arguments.quick else ["base", "large", "qwen3-0.6b"]
    arguments.shape = arguments.shape or default
    return arguments


def _rounds(
    entry: Entry,
    contenders: Iterator[tuple[str, Callable[[], Callable[[Any], Any]]]],
    items: Any,
    arguments: argparse.Namespace,
    ends: float,
) -> Entry:
    """Load the contenders, warm them up, and time their rounds, one of each after another."""
    ready: dict[str, Callable[[Any], Any]] = {}
    for name, load in contenders:
        try:
            ready[name] = load()
            entry.outputs[name] = ready[name](items[:512])
            if name == "compiled":  # every new shape of a batch could compile again
                ready[name](items)
        except Exception as error:  # one contender that does not run leaves the others
            ready.pop(name, None)
            first = (str(error).splitlines() or [""])[0]
            entry.notes.append(f"{_NAMES[name][0]}: {type(error).__name__}: {first}.")
    for number in range(arguments.rounds):
        for name, encode in ready.items():
            if number and time.monotonic() > ends:
                continue
            _wait(arguments.device)
            start = time.perf_counter()
            encode(items)
            _wait(arguments.device)
            entry.seconds.setdefault(name, []).append(time.perf_counter() - start)
    return entry


def _encoder_entry(shape: str, folder: Path, arguments: argparse.Namespace, ends: float) -> Entry:
    """Return the rounds of every contender that embeds texts."""
    import torch
    from sentence_transformers import SentenceTransformer

    from bge_eval.encode.locate import locate
    from bge_eval.encode.settings import Dtype, Pooling, Settings, Similarity
    from bge_eval.runtime.text_encoder import TextEncoder, load_tokenizer
    from bge_eval.runtime.torch_forward import TorchForward

    vocabulary = save_encoder(folder, shape)
    texts = words_of(vocabulary, arguments.texts)
    files, device = locate(str(folder), offline=True), arguments.device
    in_float32 = Settings(Pooling.MEAN, True, 512, Similarity.COSINE)
    work = Work.of(load_tokenizer(files, in_float32), texts)
    entry = Entry(shape, len(texts), work, encoder_flops(shape, work))

    def ours(dtype: Dtype, skips: bool, compiled: bool = False) -> Callable[[Any], Any]:
        settings = replace(in_float32, dtype=dtype)
        forward = TorchForward(
            files, settings, device=device, skip_padding=skips, note=entry.notes.append
        )
        if skips and (made := forward._unpadded) is not None:
            entry.notes.append(f"Attention without padding, {dtype}: {made.kernel_name}.")
        if compiled:
            forward.model = torch.compile(forward.model, dynamic=True)
        return TextEncoder(load_tokenizer(files, settings), forward, settings).encode

    def peer(dtype: str) -> Callable[[Any], Any]:
        model = SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            model_kwargs={"dtype": getattr(torch, dtype)},
        )

        def encode(texts: list[str]) -> Any:
            vectors = model.encode(texts, batch_size=32, convert_to_tensor=True)
            return vectors.float().cpu().numpy()

        return encode

    contenders = {
        "unpadded": lambda: ours(Dtype.BFLOAT16, True),
        "compiled": lambda: ours(Dtype.BFLOAT16, False, compiled=True),
        "padded": lambda: ours(Dtype.BFLOAT16, False),
        "peer": lambda: peer("bfloat16"),
        "float32": lambda: ours(Dtype.FLOAT32, True),
        "mteb": lambda: peer("float32"),
    }
    return _rounds(entry, iter(contenders.items()), texts, arguments, ends)


def _decoder_entry(shape: str, folder: Path, arguments: argparse.Namespace, ends: float) -> Entry:
    """Return the rounds of a language model that reranks: the last tokens of random rows."""
    import torch

    from bge_eval.runtime.batches import batches_by_length, default_batch_tokens
    from bge_eval.runtime.last_tokens import LastTokens

    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(160), 0.7, arguments.texts), 3, 512).astype(np.int64)
    rows = [rng.integers(3, 1000, length).tolist() for length in lengths]
    work = Work(lengths)
    entry = Entry(shape, len(rows), work, decoder_flops(shape, work))
    budget = default_batch_tokens(torch.device(arguments.device).type)

    def ours(skips: bool) -> Callable[[Any], Any]:
        model = decoder_of(shape, arguments.device).to(torch.bfloat16).eval()
        last = LastTokens(model, entry.notes.append, left=True, skip_padding=skips)

        @torch.inference_mode()
        def encode(rows: list[list[int]]) -> Any:
            sizes = np.array([len(row) for row in rows])
            made = np.empty((len(rows), model.config.hidden_size), np.float32)
            for batch in batches_by_length(sizes, budget):
                made[batch] = last.vectors([rows[row] for row in batch]).float().cpu().numpy()
            return made

        return encode

    contenders = {"unpadded": lambda: ours(True), "padded": lambda: ours(False)}
    return _rounds(entry, iter(contenders.items()), rows, arguments, ends)


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


def _peak(device: str, dtype: str) -> float:
    """Return the rate of a large matrix product in TFLOP/s, the best of several sizes."""
    import torch

    best = 0.0
    for size in (4096, 8192, 12288) if device.startswith("cuda") else (512, 1024):
        one = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
        times = 20 if device.startswith("cuda") else 3
        for count in (1, times):
            _wait(device)
            start = time.perf_counter()
            for _ in range(count):
                one @ one
            _wait(device)
            best = max(best, 2 * size**3 * count / (time.perf_counter() - start) / 1e12)
    return best


def _wait(device: str) -> None:
    """Wait until the device has finished its queue."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()


def _cosines(one: Any, other: Any) -> Any:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.einsum("ij,ij->i", one, other) / norms


def _machine(device: str) -> str:
    import torch
    import transformers

    card = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor()
    return f"{card or device}, torch {torch.__version__}, transformers {transformers.__version__}"


def _heading(record: dict[str, Any]) -> str:
    peaks = ", ".join(f"{name} {value:,.1f}" for name, value in record["peak_tflops"].items())
    return f"{record['machine']}. Measured peaks in TFLOP/s: {peaks}.\n\n"


def _section(entry: dict[str, Any]) -> str:
    """Return the Markdown table of one model."""
    measured = entry["contenders"]
    slowest = max(statistics.median(each["seconds"]) for each in measured.values())
    baseline = "mteb's time ÷" if "mteb" in measured else "slowest time ÷"
    if "mteb" in measured:
        slowest = statistics.median(measured["mteb"]["seconds"])
    heading = [f"{entry['shape']}, {entry['texts']:,} texts, {entry['tokens']:,} tokens"]
    heading += ["tokens/s", "of the peak", baseline, "least cosine", "rounds"]
    rows = [
        [
            title,
            figure(measured[name]["tokens_per_second"], 0),
            f"{measured[name]['of_peak']:.0%}",
            figure(slowest / statistics.median(measured[name]["seconds"]), 2),
            f"{measured[name]['least_cosine']:.5f}",
            str(len(measured[name]["seconds"])),
        ]
        for name, (title, _) in _NAMES.items()
        if name in measured
    ]
    padding = entry["padding"]
    notes = " ".join(dict.fromkeys(entry["notes"]))
    return (
        f"{table(heading, rows)}\n\nPadding among the computed tokens: bge-eval's padded batches"
        f" {padding['padded']:.1%}, batches of 32 {padding['mteb']:.1%}. {notes}\n"
    )


def _published() -> str:
    """Return the figures that others have published, as a Markdown table."""
    rows = [
        [server, model, card, figure(rate, 0), date]
        for server, model, card, rate, date in _PUBLISHED
    ]
    return "\n" + table(["published, through HTTP", "model", "card", "tokens/s", "date"], rows)


if __name__ == "__main__":
    main()
