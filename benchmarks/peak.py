"""How near the forward pass on a CPU is to this processor's peak, and where the rest goes.

    python benchmarks/peak.py --collection ../shared/datasets/SciFact --documents 600 --pairs 200

The peak is that of a product of two square matrices in OpenVINO. Between it and the whole path,
from texts to vectors, each step is measured alone, at the shapes of the real batches: the products
with weights, those of the attention, the attention with its softmax, the forward pass, pooling,
tokenising. Operations are those of the real tokens: the products of the layers and of the
attention, without padding. All is in CPU seconds, so that other work on the machine disturbs
little; only the idle share compares them with the clock. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from measuring import table
from precisions import rerankers
from rerank_pairs import make, pairs_of

DTYPES = ("float32", "bfloat16", "int8")
SQUARE = 2048
THREADS = "OMP_NUM_THREADS"

Shapes = Sequence[tuple[int, int]]
"""Texts and tokens of each batch, padding included."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a BERT-like transformer that determine its operations."""

    hidden: int
    inner: int
    heads: int
    layers: int
    first_only: bool = False
    """Whether the last layer computes keys and values only for all tokens but the first."""

    @classmethod
    def read(cls, folder: Path, *, first_only: bool = False) -> Sizes:
        """Read them from a model's config.json."""
        read = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
        hidden, inner, heads, layers = (int(read[name]) for name in names)
        return cls(hidden, inner, heads, layers, first_only)

    @property
    def products(self) -> dict[tuple[int, int], int]:
        """Return (inputs, outputs) of each product with weights → how often all tokens need it."""
        whole = self.layers - int(self.first_only)
        square = 4 * whole + 2 * int(self.first_only)
        hidden, inner = self.hidden, self.inner
        return {(hidden, hidden): square, (hidden, inner): whole, (inner, hidden): whole}

    @property
    def attentions(self) -> int:
        """Return the number of layers whose attention computes all tokens."""
        return self.layers - int(self.first_only)

    def operations(self, lengths: npt.NDArray[np.int64]) -> float:
        """Return the floating-point operations of texts of these lengths."""
        real = lengths.astype(float)
        weights = sum(2 * wide * out * often for (wide, out), often in self.products.items())
        return float((weights * real + 4 * self.hidden * self.attentions * real**2).sum())


def _quantised(value: Any, largest: float) -> Any:
    from openvino import opset13 as ops

    low, high = np.float32(-largest), np.float32(largest * 127 / 128)
    return ops.fake_quantize(value, low, high, low, high, 256)


def _model(dtype: str, shapes: list[list[int]], build: Callable[..., Any]) -> Any:
    """Return a compiled model on one thread; in bfloat16 it takes and returns bfloat16."""
    import openvino
    from openvino import opset13 as ops

    kind = openvino.Type.bf16 if dtype == "bfloat16" else openvino.Type.f32
    given = [ops.parameter(openvino.PartialShape(shape), kind) for shape in shapes]
    output = build(*(ops.convert(each, openvino.Type.f32) for each in given))
    model = openvino.Model([ops.convert(output, kind)], given)
    hint = "bf16" if dtype == "bfloat16" else "f32"
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": hint}
    return openvino.Core().compile_model(model, "CPU", options)


def _linear(dtype: str, wide: int, out: int) -> Any:
    from openvino import opset13 as ops

    weights = np.random.default_rng(0).standard_normal((out, wide), np.float32) / 32

    def build(states: Any) -> Any:
        if dtype != "int8":
            return ops.matmul(states, ops.constant(weights), False, True)
        constant = _quantised(ops.constant(weights), 0.125)
        return ops.matmul(_quantised(states, 4.0), constant, False, True)

    return _model(dtype, [[-1, -1, wide]], build)


def _attention(dtype: str, width: int, *, softmax: bool) -> Any:
    """Return attention over ``(texts, heads, tokens, width)``; or its two products alone."""
    from openvino import opset13 as ops

    def build(query: Any, key: Any, value: Any, mask: Any) -> Any:
        if softmax:
            return ops.scaled_dot_product_attention(query, key, value, mask)
        scores = ops.matmul(query, key, False, True)
        return ops.add(ops.matmul(scores, value, False, False), mask)

    heads = [-1, -1, -1, width]
    return _model(dtype, [heads, heads, heads, [-1, 1, 1, -1] if softmax else [1]], build)


def _seconds(compiled: Any, shapes: list[list[int]], times: int = 3) -> float:
    """Return the fewest CPU seconds of a model on inputs of these shapes."""
    import openvino

    request = compiled.create_infer_request()
    for index, shape in enumerate(shapes):
        tensor = openvino.Tensor(compiled.input(index).get_element_type(), openvino.Shape(shape))
        tensor.data[:] = 0  # bytes of a number that is no NaN, in every type
        request.set_input_tensor(index, tensor)
    request.infer()
    spent = []
    for _ in range(times):
        start = time.process_time()
        request.infer()
        spent.append(time.process_time() - start)
    return min(spent)


def peak(dtype: str) -> float:
    """Return operations per second of one core: a product of two square matrices."""
    return 2 * SQUARE**3 / _seconds(_linear(dtype, SQUARE, SQUARE), [[1, SQUARE, SQUARE]], 5)


def torch_peak(dtype: str) -> float:
    """Return the same in torch."""
    import torch

    one = torch.full((SQUARE, SQUARE), 0.5, dtype=getattr(torch, dtype))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    spent = []
    for _ in range(5):
        start = time.process_time()
        one @ one
        spent.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return 2 * SQUARE**3 / min(spent)


def linear_seconds(dtype: str, sizes: Sizes, shapes: Shapes) -> float:
    """Return the CPU seconds of all products with weights, alone."""
    total = 0.0
    for (wide, out), often in sizes.products.items():
        compiled = _linear(dtype, wide, out)
        total += often * sum(_seconds(compiled, [[*shape, wide]]) for shape in shapes)
    return total


def attention_seconds(dtype: str, sizes: Sizes, shapes: Shapes, *, softmax: bool) -> float:
    """Return the CPU seconds of the attention of all layers, alone."""
    width = sizes.hidden // sizes.heads
    compiled = _attention(dtype, width, softmax=softmax)
    total = 0.0
    for texts, tokens in shapes:
        heads = [texts, sizes.heads, tokens, width]
        mask = [texts, 1, 1, tokens] if softmax else [1]
        total += _seconds(compiled, [heads, heads, heads, mask])
    return sizes.attentions * total


def spent(call: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of a call by the clock, and its CPU seconds."""
    clock, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - clock, time.process_time() - cpu


def make_base(folder: str) -> None:
    """Save an encoder of the size of bge-base, 12 layers 768 wide, with random weights."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from bge_eval.encode.locate import BUILTIN, locate

    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(locate(BUILTIN).folder)).save_pretrained(folder)


def _encoder(model: str, dtype: str, threads: int) -> Any:
    from bge_eval.encode.settings import Dtype, Overrides, Pooling
    from bge_eval.models.kinds import ModelOptions
    from bge_eval.models.transformer import EncoderModel

    os.environ[THREADS] = str(threads)
    overrides = Overrides(dtype=Dtype(dtype), pooling=Pooling.MEAN, normalize=True)
    options = ModelOptions(device="cpu", store=False, overrides=overrides)
    return EncoderModel(model, options).encoder


def encoding(model: str, texts: list[str], dtypes: Sequence[str], rounds: int) -> None:
    """Print the tables of an encoder: the whole path by threads, and the steps of one thread."""
    from bge_eval.encode.locate import locate

    sizes = Sizes.read(locate(model).folder)
    cores = sorted({1, os.cpu_count() or 1})
    ours = {(dtype, count): _encoder(model, dtype, count) for dtype in dtypes for count in cores}
    lengths = _lengths(ours[dtypes[0], 1], texts)
    work = sizes.operations(lengths)
    for (_, count), encoder in ours.items():
        os.environ[THREADS] = str(count)
        encoder.encode(texts[:64])
    runs: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in ours}
    for _ in range(rounds):
        for key, encoder in ours.items():
            os.environ[THREADS] = str(key[1])  # models compiled for one shape read it too
            runs[key].append(spent(partial(encoder.encode, texts)))
    print(f"{len(texts)} texts, {lengths.sum()} tokens, {work / 1e9:.0f} GFLOP; {SQUARE} squared\n")
    os.environ[THREADS] = "1"
    peaks = {dtype: peak(dtype) for dtype in dtypes}
    rows = []
    for (dtype, count), pairs in runs.items():
        clock, cpu = (min(each) for each in zip(*pairs, strict=True))
        reached = work / peaks[dtype]
        idle = 1 - cpu / clock / count
        figures = [f"{count}", f"{clock:.2f}", f"{cpu:.2f}", f"{lengths.sum() / clock:.0f}"]
        figures += [f"{100 * reached / clock / count:.0f}%", f"{100 * reached / cpu:.0f}%"]
        rows.append([dtype, *figures, f"{100 * max(idle, 0):.0f}%"])
    heads = ["threads", "s", "CPU s", "tokens/s", "of the peak", "by CPU s", "idle"]
    print(table(["whole path", *heads], rows))
    print()
    steps = {
        dtype: _steps(ours[dtype, 1], texts, dtype, sizes, work / peaks[dtype]) for dtype in dtypes
    }
    for dtype in dtypes:
        steps[dtype]["the whole path"] = min(cpu for _, cpu in runs[dtype, 1])
    _print_steps(steps, peaks)


def _lengths(encoder: Any, texts: list[str]) -> npt.NDArray[np.int64]:
    limit = encoder.settings.max_length
    ids = encoder.tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
    return np.array([len(each) for each in ids], np.int64)


def _steps(
    encoder: Any, texts: list[str], dtype: str, sizes: Sizes, least: float
) -> dict[str, float]:
    """Return step → CPU seconds of one thread, from the arithmetic to the whole path."""
    from bge_eval.runtime.pooling import pooled

    batches: list[Any] = []
    run = encoder.forward.run

    def keep(given: Any) -> Any:
        batches.extend(given)
        return run(iter(batches))

    encoder.forward.run = keep
    encoder.encode(texts)
    encoder.forward.run = run
    shapes = [batch.features["input_ids"].shape for batch in batches]
    forward = min(spent(lambda: list(run(iter(batches))))[1] for _ in range(2))
    hidden = [np.zeros((*shape, sizes.hidden), np.float32) for shape in shapes[:8]]
    pooling = 0.0
    for batch, states in zip(batches, hidden, strict=False):
        pooling += spent(partial(pooled, states, batch.pooled, "mean"))[1]
    return {
        "at the peak": least,
        "products with weights": linear_seconds(dtype, sizes, shapes),
        "attention's products": attention_seconds(dtype, sizes, shapes, softmax=False),
        "attention whole": attention_seconds(dtype, sizes, shapes, softmax=True),
        "forward pass, pooled": forward,
        "of this, pooling": pooling * len(batches) / len(hidden),
        "tokenising": spent(lambda: _lengths(encoder, texts))[1],
    }


def _print_steps(steps: dict[str, dict[str, float]], peaks: dict[str, float]) -> None:
    rows = [
        ["peak, GFLOP/s of a core", *(f"{peaks[dtype] / 1e9:.0f}" for dtype in steps)],
        ["torch's peak", *("–" if d == "int8" else f"{torch_peak(d) / 1e9:.0f}" for d in steps)],
    ]
    names = next(iter(steps.values()))
    rows += [[name, *(f"{each[name]:.2f}" for each in steps.values())] for name in names]
    print(table(["CPU s of one thread", *steps], rows))


def reranking(pairs: list[tuple[str, str]], dtypes: Sequence[str], rounds: int) -> None:
    """Print the table of a cross-encoder: `CrossEncoder.predict`, ours, and the products alone."""
    import torch

    from bge_eval.encode.locate import locate
    from bge_eval.rerank.cross_encoder import CrossEncoderReranker
    from bge_eval.rerank.reranker import RerankerOptions

    os.environ[THREADS] = "1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make(folder)
        contenders = rerankers(folder, dtypes)
        sizes = Sizes.read(Path(folder), first_only=True)
        rule = CrossEncoderReranker(locate(folder), RerankerOptions(device="cpu")).pair_rule()
        lengths = rule.lengths(pairs)
        shapes = [
            (len(batch.rows), int(lengths[batch.rows].max())) for batch in rule.batches(pairs)
        ]
        for call in contenders.values():
            call(pairs[:32])
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, call in contenders.items():
                seconds[name].append(spent(partial(call, pairs))[1])
    for dtype in dtypes:
        alone = linear_seconds(dtype, sizes, shapes)
        alone += attention_seconds(dtype, sizes, shapes, softmax=False)
        seconds[f"{dtype}, products alone"] = [alone]
    slowest = min(seconds["CrossEncoder.predict"])
    rows = [
        [name, f"{min(each):.2f}", f"{slowest / min(each):.2f}"] for name, each in seconds.items()
    ]
    print(f"\n{len(pairs)} pairs, {lengths.sum()} tokens\n")
    print(table(["CPU s of one thread", "CPU s", "predict's ÷ it"], rows))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=600)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument(
        "--base", action="store_true", help="random weights of bge-base's size, not MiniLM"
    )
    arguments = parser.parse_args()
    with (arguments.collection / "corpus.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(next(lines))["text"] for _ in range(arguments.documents)]
    if texts:
        with tempfile.TemporaryDirectory() as folder:
            if arguments.base:
                make_base(folder)
            model = folder if arguments.base else "builtin:all-MiniLM-L6-v2"
            encoding(model, texts, arguments.dtypes, arguments.rounds)
    if arguments.pairs:
        pairs = pairs_of(str(arguments.collection), arguments.pairs)
        reranking(pairs, arguments.dtypes, arguments.rounds)


if __name__ == "__main__":
    main()
