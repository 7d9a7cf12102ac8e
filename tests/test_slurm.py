"""The recipe for Slurm in docs/scale.md, run by Slurm itself: its daemons on this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import ROOT, CommandLine, write_beir
from test_ray import records, results

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={port}
SlurmdPort={next_port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Start munge's and Slurm's daemons in folders of the test; yield the environment."""
    programs = {
        name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in PROGRAMS
    }
    if missing := [name for name, path in programs.items() if path is None]:
        pytest.skip(
            f"needs Slurm on this machine ({', '.join(missing)}): apt-get install slurm-wlm"
        )
    folder = tmp_path / "slurm"
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "munge").chmod(0o755)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = {"port": one.getsockname()[1], "next_port": two.getsockname()[1]}
    host = socket.gethostname().partition(".")[0]
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    facts = {"host": host, "user": user, "folder": folder, "cores": os.cpu_count(), **ports}
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(**facts))
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    place = {name: str(folder / "munge" / name) for name in ("socket", "pid", "log", "seed")}
    munge = [f"--socket={place['socket']}", f"--pid-file={place['pid']}", f"--key-file={key}"]
    munge += [f"--log-file={place['log']}", f"--seed-file={place['seed']}"]
    with ExitStack() as running:

        def daemon(name: str, *words: str) -> None:
            log = running.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                [str(programs[name]), *words],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            running.callback(process.wait, 30)
            running.callback(process.terminate)

        daemon("munged", "--foreground", "--force", *munge)
        daemon("slurmctld", "-D")
        daemon("slurmd", "-D", "-N", host)
        yield environment


def recipe(options: str) -> str:
    """Return the batch script of docs/scale.md for a model, tasks and folders of the test."""
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    script = page.partition("## Slurm")[2].partition("```bash\n")[2].partition("```")[0]
    resources, command = "--array=1-8 --gpus=1 --cpus-per-task=8 --mem=32G", "bge-eval run "
    assert resources in script and command in script and "--shard slurm" in script
    own = "--model BAAI/bge-base-en-v1.5 --tasks beir --offline"
    folders = "--store /shared/store --output /shared/runs"
    assert own in script and folders in script
    script = script.replace(resources, "--array=1-3 --mem=0 --output=part-%a.log")
    script = script.replace(own, options).replace(folders, "--store store --output runs")
    return script.replace(command, f"{sys.executable} -m bge_eval run ")


@pytest.mark.slow
def test_the_recipe_runs_as_a_job_array(
    slurm: dict[str, str], tiny_bge: Path, bge_eval: CommandLine, tmp_path: Path
) -> None:
    texts = [
        f"{subject} {number} {'word ' * (number % 30)}" for number in range(400) for subject in "ab"
    ]
    collection = write_beir(
        tmp_path / "data" / "own",
        [{"_id": f"d{place}", "text": text} for place, text in enumerate(texts)],
        {"q1": "a 7", "q2": "b 90 word"},
        [("q1", "d14", 1), ("q2", "d181", 1)],
    )
    options = f"--model {tiny_bge} --tasks {collection} --offline"
    place = tmp_path / "cwd"
    place.mkdir()
    (place / "parts.sh").write_text(recipe(options))
    for _ in range(60):  # the daemons answer once they have found each other
        sent = subprocess.run(
            ["sbatch", "--parsable", "parts.sh"],
            cwd=place,
            env=slurm,
            capture_output=True,
            text=True,
        )
        if sent.returncode == 0:
            break
        time.sleep(0.5)
    assert sent.returncode == 0, sent.stderr
    job = sent.stdout.strip()
    while subprocess.run(
        ["squeue", "-h", "-j", job], env=slurm, capture_output=True, text=True
    ).stdout.strip():
        time.sleep(0.5)
    logs = {path.name: path.read_text() for path in sorted(place.glob("part-*.log"))}
    assert sorted(logs) == ["part-1.log", "part-2.log", "part-3.log"], logs
    assert all(
        f"Part {number}/3 is done" in " ".join(log.split())
        for number, log in enumerate(logs.values(), 1)
    ), logs
    complete = bge_eval("shards", "--store", "store")
    assert complete.returncode == 0 and "3 of 3" in complete.stdout
    words = options.split()
    assert bge_eval("run", *words, "--store", "store", "--output", "runs").returncode == 0
    assert bge_eval("run", *words, "--no-store", "--output", "single").returncode == 0
    assert results(place / "runs") == results(place / "single")
    assert list(records(place / "runs")["own"].profile.workers) == [
        "part 1/3",
        "part 2/3",
        "part 3/3",
    ]
