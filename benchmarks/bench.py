"""Compare bge-eval with its peers in one run, alternating; print Markdown, write RESULTS.md.

    make bench         # peers in an environment of their own, full sizes
    make bench-quick   # main environment, small sizes

Machines are noisy: only ratios within one run mean anything.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import encode_task
import load_corpus
import make_collections
import rerank_pairs
import search_top_k
from measuring import Clock, Measured, alternate, compared, figure, measure, table

_ROOT = Path(__file__).resolve().parent.parent
_RESULTS = _ROOT / "benchmarks" / "RESULTS.md"
_PACKAGES = (
    "bge-eval", "mteb", "sentence-transformers", "FlagEmbedding", "beir", "torch", "openvino",
    "transformers", "faiss-cpu", "numpy", "datasets",
)  # fmt: skip
_MARK = "<!-- section {} -->"
_SECTIONS = ("encode", "search", "second", "start", "rerank", "load")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the benchmark."""

    documents: int
    queries: int
    rounds: int
    searched: tuple[int, ...]
    search_queries: int
    results: int
    pairs: int
    loaded: int


FULL = Sizes(3633, 300, 2, (500_000, 1_000_000, 2_000_000), 2000, 1000, 2000, 1_000_000)
QUICK = Sizes(40, 15, 1, (50_000,), 300, 60, 20, 50_000)
_BFLOAT16 = "bge-eval bfloat16"
_QUICK_ENCODERS = (encode_task.OURS, "bge-eval float32, torch", "mteb, sentence-transformers")


@dataclass(frozen=True)
class Bench:
    """Settings that every section shares."""

    sizes: Sizes
    quick: bool
    scratch: Path
    collection: Path
    kind: str
    clock: Clock
    emulate: bool = False
    """Measure bfloat16 also where the processor emulates it, several times slower than float32."""

    @cached_property
    def peak(self) -> dict[str, Any]:
        """The machine's peak in float32 matrix products; empty where it was not measured."""
        found = measure("encode_task", encode_task.PEAK, {}, self.clock.left())
        return {} if "failure" in found else found

    def encode(self) -> str:
        title = f"{self.kind}, {self.sizes.documents:,} documents, {self.sizes.queries} queries"
        names = list(_QUICK_ENCODERS if self.quick else encode_task.CONTENDERS)
        names = [name for name in names if name != encode_task.PEAK]
        parts = [f"## Whole task ({title})\n"]
        for device in _devices():
            arguments = {"collection": str(self.collection), "device": device}
            skipped = (
                _BFLOAT16 if device == "cpu" and not self.emulate and not _has_bfloat16() else ""
            )
            found = alternate(
                "encode_task",
                [name for name in names if name != skipped],
                arguments,
                self.sizes.rounds,
                self.clock,
            )
            if skipped in names:
                found[skipped] = Measured([], "not run: no bfloat16 arithmetic (--emulate runs it)")
            peak = self.peak
            base = found[encode_task.OURS].median("score")
            tokens = found[encode_task.OURS].median("tokens")
            for measured in found.values():
                for entry in measured.rounds:
                    entry["loss"] = None if base is None else base - entry["score"]
                    if tokens is not None:
                        entry["tokens_per_second"] = tokens / entry["seconds"]
                        if device == "cpu" and "flops" in peak:
                            work = tokens * peak["flops_per_token"]
                            entry["share"] = 100 * work / peak["flops"] / entry["seconds"]
            columns = {
                "seconds": ("seconds", 1),
                "tokens/s": ("tokens_per_second", 0),
                "% of matrix peak": ("share", 0),
                "peak MiB": ("peak_mib", 0),
                "nDCG@10": ("score", 5),
                "score lost": ("loss", 6),
            }
            parts += [f"On {device}.\n", compared(found, encode_task.OURS, columns), ""]
            used = {entry["backend"] for entry in found[encode_task.OURS].rounds}
            parts += [f"The automatic backend was {', '.join(sorted(used)) or 'not run'}.\n"]
            if device == "cpu" and "flops" in peak:
                least = (tokens or 0) * peak["flops_per_token"] / peak["flops"]
                parts += [
                    f"Matrix peak: {peak['flops'] / 1e9:,.0f} GFLOP/s, measured in float32 products"
                    f" of the model's shape on all cores. At that rate the model's linear layers"
                    f" alone take {least:,.0f} s: nothing in float32 can be faster here.\n"
                ]
        return "\n".join(parts)

    def search(self) -> str:
        k = min(1000, *self.sizes.searched)
        asked = self.sizes.search_queries
        parts = [f"## Exact search ({asked:,} queries × N × {search_top_k.DIMENSION}, top {k:,})\n"]
        peak = self.peak.get("flops")
        for documents in self.sizes.searched:
            folder = self.scratch / f"search-{documents}"
            folder.mkdir()
            arguments: dict[str, Any] = {
                "documents": documents, "queries": asked, "k": k, "folder": str(folder)
            }  # fmt: skip
            # The larger sizes measure bge-eval's memory only.
            first = documents == self.sizes.searched[0]
            names = list(search_top_k.FILES) if first else [search_top_k.OURS]
            rounds = self.sizes.rounds if first else 1
            found = alternate("search_top_k", names, arguments, rounds, self.clock)
            columns = {"seconds": ("seconds", 2), "peak MiB": ("peak_mib", 0)}
            parts += [f"N = {documents:,}.\n", compared(found, search_top_k.OURS, columns), ""]
            parts += [line for name in names[1:] if (line := self._agreement(folder, name))]
            if first and peak:
                least = 2 * asked * documents * search_top_k.DIMENSION / peak
                parts += [
                    f"The matrix product alone takes {least:.2f} s at this machine's"
                    f" {peak / 1e9:,.0f} GFLOP/s.\n"
                ]
        return "\n".join(parts)

    def _agreement(self, folder: Path, name: str) -> str:
        files = [folder / f"{search_top_k.FILES[one]}.npy" for one in (search_top_k.OURS, name)]
        if not all(file.exists() for file in files):
            return ""
        arguments = {"one": str(files[0]), "other": str(files[1])}
        found = measure_agreement(arguments, self.clock)
        if "failure" in found:
            return f"{name}: rankings not compared ({found['failure']}).\n"
        return (
            f"{name}: the same document in {100 * found['places']:.4f} % of all places, the same"
            f" set in {100 * found['sets']:.2f} % of the queries.\n"
        )

    def second(self) -> str:
        arguments = {
            "collection": str(self.collection), "folder": str(self.scratch / "second")
        }  # fmt: skip
        names = ["first run", "other query prompt", "other measure"]
        found = alternate("commands", names, arguments, self.sizes.rounds, self.clock)
        first = found["first run"]
        rows = []
        for name, measured in found.items():
            cells = [name]
            for key in ("seconds", "encoding"):
                value, base = measured.median(key), first.median(key)
                cells.append(figure(value, 2))
                cells.append(figure(base / value, 1) if base and value else "–")
            rows.append([*cells, measured.failure])
        headings = ["", "command s", "first ÷ this", "encode corpus s", "first ÷ this", ""]
        return (
            f"## Second runs ({self.kind}, {self.sizes.documents:,} documents)\n\n"
            f"{table(headings, rows)}\n\nThe command's seconds hold the start of Python and the"
            " imports. A dash: nothing was encoded.\n"
        )

    def start(self) -> str:
        arguments = {
            "collection": str(_ROOT / "tasks" / "demo"), "folder": str(self.scratch / "start")
        }  # fmt: skip
        given = {"count": self.sizes.results, "made": str(self.scratch / "second")}
        made = measure("commands", "make results", arguments | given, self.clock.left())
        found = {
            name: alternate("commands", [name], arguments, 1 if self.quick else 5, self.clock)[name]
            if name != "bge-eval table" or "failure" not in made
            else Measured([], made["failure"])
            for name in ("bge-eval --help", "typer's own --help", "bge-eval table")
        }
        rows = [
            [name, figure(measured.median("seconds"), 2), figure(measured.median("peak_mib"), 0),
             figure(measured.median("rows"), 0), measured.failure]
            for name, measured in found.items()
        ]  # fmt: skip
        headings = ["", "seconds", "peak MiB", "rows", ""]
        return f"## Start ({self.sizes.results:,} result files)\n\n{table(headings, rows)}\n"

    def rerank(self) -> str:
        model = str(self.scratch / "cross-encoder")
        made = measure("rerank_pairs", "make", {"folder": model}, self.clock.left())
        arguments = {
            "collection": str(self.collection), "model": model, "pairs": self.sizes.pairs
        }  # fmt: skip
        names = [rerank_pairs.OURS, "CrossEncoder.predict"]
        found = alternate("rerank_pairs", names, arguments, self.sizes.rounds, self.clock)
        columns = {
            "seconds": ("seconds", 2),
            "pairs/s": ("pairs_per_second", 0),
            "peak MiB": ("peak_mib", 0),
        }
        said = ""
        if all(found[name].rounds for name in names):
            scores = [found[name].rounds[0]["scores"] for name in names]
            gap = max(abs(a - b) for a, b in zip(*scores, strict=True))
            said = f"\nLargest difference of a score: {gap:.1e}.\n"
        if "conversion" in made:
            said += (
                f"\nThe model was converted to OpenVINO before, once: {made['conversion']:.1f} s.\n"
            )
        body = compared(found, rerank_pairs.OURS, columns)
        return f"## Reranking ({self.sizes.pairs:,} pairs, float32, CPU)\n\n{body}\n{said}"

    def load(self) -> str:
        folder = self.scratch / "loaded"
        make_collections.generate(folder, self.sizes.loaded, 100)
        found = alternate(
            "load_corpus",
            list(load_corpus.CONTENDERS),
            {"collection": str(folder)},
            self.sizes.rounds,
            self.clock,
        )
        size = (folder / "corpus.jsonl").stat().st_size / 2**20
        columns = {"seconds": ("seconds", 2), "peak MiB": ("peak_mib", 0)}
        title = f"## Loading ({self.sizes.loaded:,} generated documents, {size:,.0f} MiB)"
        return f"{title}\n\n{compared(found, load_corpus.OURS, columns)}\n"


def measure_agreement(arguments: dict[str, Any], clock: Clock) -> dict[str, Any]:
    """Compare two saved rankings."""
    return measure("search_top_k", "agreement", arguments, clock.left())


def _devices() -> list[str]:
    return ["cpu", "cuda"] if shutil.which("nvidia-smi") else ["cpu"]


def _processor() -> tuple[str, set[str]]:
    """Return the processor's name and instruction sets, as far as the system names them."""
    name = platform.processor() or platform.machine()
    if not (info := Path("/proc/cpuinfo")).is_file():
        return name, set()
    pairs = [line.split(":", 1) for line in info.read_text().splitlines() if ":" in line]
    lines = {key.strip(): value.strip() for key, value in pairs}
    return lines.get("model name", name), set(lines.get("flags", "").split())


def _has_bfloat16() -> bool:
    flags = _processor()[1]
    return not flags or bool({"avx512_bf16", "amx_bf16"} & flags)


def _machine() -> str:
    processor, flags = _processor()
    memory = ""
    if hasattr(os, "sysconf"):
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        memory = f", {pages / 2**30:.0f} GiB of memory"
    known = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")
    has = [name for name in known if name in flags]
    said = f"{processor}, {os.cpu_count()} cores{memory}; {', '.join(has) or 'flags unknown'}."
    if not _has_bfloat16():
        said += (
            "\n\nThis processor has no bfloat16 arithmetic: bfloat16 is converted to float32 and"
            " back, so it cannot be faster than float32 here, and its ratio says nothing about"
            " machines that have it."
        )
    if flags and "avx512f" not in flags:
        said += (
            " Without AVX-512 the peak of a core is half: the matrix products, which every"
            " contender shares, take more of the time, and the ratios between contenders come"
            " out smaller than where the arithmetic is fast and overheads weigh more."
        )
    return said


def _versions() -> str:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} –")
    return f"Python {platform.python_version()}; {', '.join(found)}."


def main() -> None:
    """Read the arguments, measure section by section, write after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--only", nargs="+", choices=_SECTIONS, default=_SECTIONS)
    parser.add_argument("--documents", type=int, help="documents of the collection")
    parser.add_argument("--queries", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--searched", type=int, nargs="+", help="corpus sizes of the search")
    parser.add_argument("--search-queries", type=int)
    parser.add_argument("--results", type=int, help="result files of `table`")
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--loaded", type=int)
    parser.add_argument(
        "--emulate", action="store_true", help="bfloat16 where the processor has none, too"
    )
    parser.add_argument("--minutes", type=float, help="stop measuring after this long")
    parser.add_argument("--datasets", type=Path, default=_ROOT.parent / "shared" / "datasets")
    parser.add_argument("--write", type=Path, default=None, help="default: benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    base = QUICK if arguments.quick else FULL
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name in Sizes.__slots__
        if (value := getattr(arguments, name)) is not None
    }
    sizes = Sizes(**({name: getattr(base, name) for name in Sizes.__slots__} | given))
    target = arguments.write or _RESULTS
    command = shlex.join(["python", "benchmarks/bench.py", *sys.argv[1:]])
    parts = [
        "# Measured\n",
        f"Command: `{command}`\n",
        f"Machine: {_machine()}\n",
        f"Versions: {_versions()}\n",
        "Every measurement is a process of its own, contenders take turns, figures are medians of"
        " the rounds in brackets. A ratio above 1: bge-eval is faster. Seconds of a shared machine"
        " mean little, ratios within one run do.\n",
    ]
    print("\n".join(parts), flush=True)
    with tempfile.TemporaryDirectory(prefix="bge-eval-bench-") as folder:
        scratch = Path(folder)
        collection = scratch / make_collections.NAME
        kind = make_collections.collection(
            collection, arguments.datasets, sizes.documents, sizes.queries
        )
        clock = Clock(arguments.minutes)
        bench = Bench(sizes, arguments.quick, scratch, collection, kind, clock, arguments.emulate)
        kept = _sections(target)
        for section in _SECTIONS:
            if section in arguments.only:
                said = f"`{command}`" if len(arguments.only) < len(_SECTIONS) else ""
                text = getattr(bench, section)()
                print(text, flush=True)
                kept[section] = f"{text}\nMeasured by {said}\n" if said else text
            body = "".join(
                f"\n{_MARK.format(name)}\n{kept.get(name, f'## {name}: not run')}"
                for name in _SECTIONS
            )
            target.write_text("\n".join(parts) + body)


def _sections(target: Path) -> dict[str, str]:
    """Return the sections of an earlier run, which `--only` does not change."""
    if not target.is_file():
        return {}
    found = {}
    for name in _SECTIONS:
        _, mark, after = target.read_text().partition(_MARK.format(name))
        if mark and ": not run" not in (text := after.partition("\n<!-- ")[0]):
            found[name] = text.strip("\n") + "\n"
    return found


if __name__ == "__main__":
    main()
