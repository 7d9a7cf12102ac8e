"""Measure how much faster two Ray workers of one core encode than one, in alternation.

    RAY_worker_niceness=0 python benchmarks/cluster_speed.py --texts 1500 --repeats 3
    RAY_worker_niceness=0 python benchmarks/cluster_speed.py --model ./tiny --texts 20000 --kill

All workers are started and warmed up first. Then the same number of new texts is encoded by one
worker, by two, by one … Every ratio is of two neighbours, so that a change of the machine's load
moves both. The seconds include everything that this process does: cutting, sending, receiving.
With ``--kill`` one of the two dies halfway, and benchmarks/simulate_cluster.py predicts the time
from the speed of one worker and from how long a worker takes to start.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import threading
import time

from bge_eval.encode.settings import Backend
from bge_eval.models.form import Form
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.scale.cluster import ClusterOptions, Sizes, connected
from bge_eval.scale.crew import Crew
from bge_eval.scale.engine import Engine
from simulate_cluster import replay

BUILTIN = "builtin:all-MiniLM-L6-v2"


def texts_of(count: int, draw: random.Random) -> list[str]:
    """Return different texts of 5 to 60 short words."""
    words = [f"{one}{two}" for one in ("ba", "ke", "li", "mo", "nu") for two in ("ra", "ten", "so")]
    return [
        f"{number} " + " ".join(draw.choices(words, k=draw.randint(5, 60)))
        for number in range(count)
    ]


def _kill_one(model: EncoderModel, engine: Engine, texts: list[str], alone: float) -> None:
    """Encode with two workers, one of which dies halfway; print time and prediction."""
    profile, middle = engine.progress.fresh_profile(), alone / 4
    victim = engine.crew.processes()[1]
    timer = threading.Timer(middle, os.kill, (victim, signal.SIGKILL))
    timer.start()
    start = time.perf_counter()
    model.vectors_of(texts, Form())
    seconds = time.perf_counter() - start
    back = max(seconds - middle, 0.0)  # a start takes longer than the rest, or it shows below
    parts = sum(each.shards for each in profile.workers.values())
    predicted = replay(alone, parts, [1.0, 1.0], (1, middle, back))
    retries = sum(each.retries for each in profile.workers.values())
    print(
        f"one of two killed at {middle:.1f} s: {seconds:.2f} s, predicted {predicted:.2f} s,"
        f" {parts} shards, {retries} retries",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default=BUILTIN)
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kill", action="store_true")
    asked = parser.parse_args()
    draw, progress = random.Random(1), Progress()
    with connected(ClusterOptions(cpus=3), print) as ray:
        models = {}
        for count in (1, 2):
            engine = Engine(ClusterOptions(workers=count), progress, offline=True)
            engine.use(Crew(ray, Sizes(count, 1, 0.0), progress, offline=True))
            options = ModelOptions(store=False, offline=True, backend=Backend.TORCH)
            models[count] = EncoderModel(asked.model, options)
            engine.spread(models[count], asked.model)
            for _ in range(2):
                models[count].vectors_of(texts_of(512, draw), Form())
        ratios: list[float] = []
        for _ in range(asked.repeats):
            seconds = {}
            for count, model in models.items():
                texts = texts_of(asked.texts, draw)
                start = time.perf_counter()
                model.vectors_of(texts, Form())
                seconds[count] = time.perf_counter() - start
            ratios.append(seconds[1] / seconds[2])
            load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
            print(
                f"one worker {seconds[1]:.2f} s, two {seconds[2]:.2f} s: {ratios[-1]:.2f} times;"
                f" load {load}",
                flush=True,
            )
            if asked.kill:
                _kill_one(models[2], engine, texts_of(asked.texts, draw), seconds[1])
    print(f"median {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
